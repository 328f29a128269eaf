"""How long the pages take with a million people behind them, beside a hundred: the same server, the same pages.

``python -m bench.screens [--rows 1000000] [--times 15]`` prints a table and writes ``bench/results/screens.json``. The
time is that of the whole page over HTTP, in ms, in the middle of so many requests, after two that do not count.
"""

import argparse
import asyncio
import json
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from bench import results
from bench.surface import KEY, running, settings_file
from civiapi.api.call import Call
from civiapi.app import open_app
from civiapi.settings import load_settings
from civiapi.store.text import collation

FEW = 100
MAILCHIMP_KEY = "0123456789abcdef0123456789abcdef-us1"
LIST = "bench"
MAILCHIMPSYNC = "/civicrm/mailchimpsync"
WARM = 2

NAMES = "'Ada', 'Byron' || n, 'Ada Byron' || n, 'Byron' || n || ', Ada'"
WHEN = "'2026-01-05 10:00:00'"
MEMBER = "lower(hex(randomblob(16)))"
# One in a thousand failed, as many are to be looked at, as many left; one in twenty is unknown to Mailchimp.
FILL = (
    "INSERT INTO civicrm_contact (id, contact_type, first_name, last_name, display_name, sort_name)"
    f" SELECT n, 'Individual', {NAMES} FROM numbers",
    "INSERT INTO civicrm_email (contact_id, location_type_id, email, is_primary)"
    " SELECT n, 1, 'person' || n || '@example.org', 1 FROM numbers",
    "INSERT INTO civicrm_group_contact (group_id, contact_id, status)"
    " SELECT 1, n, iif(n % 1000 = 7, 'Removed', 'Added') FROM numbers",
    "INSERT INTO civicrm_subscription_history (contact_id, group_id, date, method, status)"
    f" SELECT n, 1, {WHEN}, 'Admin', iif(n % 1000 = 7, 'Removed', 'Added') FROM numbers",
    "INSERT INTO civicrm_mailchimpsync_cache (mailchimp_list_id, mailchimp_member_id, mailchimp_email,"
    " mailchimp_status, mailchimp_updated, civicrm_contact_id, civicrm_groups, sync_status)"
    f" SELECT '{LIST}', iif(n % 20, {MEMBER}, NULL), iif(n % 20, 'person' || n || '@example.org', NULL),"
    f" iif(n % 20, iif(n % 1000 = 7, 'unsubscribed', 'subscribed'), NULL), iif(n % 20, {WHEN}, NULL), n,"
    f" '1;' || iif(n % 1000 = 7, 'Removed', 'Added') || ';' || {WHEN},"
    " iif(n % 1000 = 11, 'fail', iif(n % 1000 = 13, 'todo', 'ok')) FROM numbers",
)


def pages(rows: int) -> dict[str, str]:
    """What is measured, by name."""
    people = f"{MAILCHIMPSYNC}/people?list_id={LIST}"
    one = rows // 2 + 1
    return {
        "Status": MAILCHIMPSYNC,
        "Status, one audience": f"{MAILCHIMPSYNC}/audience/{LIST}",
        "People, first page": people,
        "People, deep page": f"{people}&after={rows - 60}",
        "People, page before": f"{people}&before={rows - 60}",
        "People, by address": f"{people}&address=person{one}@",
        "People, by a name": f"{people}&contact=Byron{one}",
        "People, failed": f"{people}&sync_status=fail",
        "People, unsubscribed": f"{people}&mailchimp_status=unsubscribed",
        "People, cleaned (nobody)": f"{people}&mailchimp_status=cleaned",
        "People, pending in the group (nobody)": f"{people}&civicrm_status=Pending",
        "People, failed for a reason": f"{people}&why=hold",
        "People, left the group": f"{people}&civicrm_status=Removed",
        "Person": f"{MAILCHIMPSYNC}/person?contact_id={one}",
        "Config": f"{MAILCHIMPSYNC}/config",
        "Jobs": f"{MAILCHIMPSYNC}/jobs",
    }


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=15)
    asked = parser.parse_args()
    found = {rows: measure(rows, asked.times) for rows in (FEW, asked.rows)}
    report(found, asked.rows)


def measure(rows: int, times: int) -> dict[str, float]:
    """Milliseconds of each page over a new database of so many people."""
    with tempfile.TemporaryDirectory() as folder:
        config, port = settings_file(Path(folder), f"sqlite:///{folder}/bench.sqlite")
        asyncio.run(_link(config))
        fill(Path(folder) / "bench.sqlite", rows)
        with running([sys.executable, "-m", "civiapi", "serve", "--config", str(config)], port, patience=120):
            return asyncio.run(_visit(f"http://127.0.0.1:{port}", pages(rows), times))


async def _link(config: Path) -> None:
    account = {"apiKey": MAILCHIMP_KEY, "account_name": "Bench", "audiences": {LIST: {"name": "Bench"}}}
    link = {"apiKey": MAILCHIMP_KEY, "subscriptionGroup": "1", "interests": {}}
    setting = json.dumps({"accounts": {MAILCHIMP_KEY: account}, "lists": {LIST: link}})
    async with open_app(load_settings(config)) as app:
        for entity, params in (("Group", {"title": "Bench"}), ("Setting", {"mailchimpsync_config": setting})):
            answer = await app.api.respond(Call(entity, "create", params))
            if answer["is_error"]:
                raise SystemExit(f"{entity}.create: {answer['error_message']}")


def fill(database: Path, rows: int) -> None:
    """So many people, on both sides."""
    conn = sqlite3.connect(database)
    collation.register(conn)
    conn.execute("PRAGMA synchronous = OFF")
    numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
    conn.execute(f"CREATE TEMP TABLE numbers AS {numbers} SELECT n FROM numbers", (rows,))
    for statement in FILL:
        conn.execute(statement)
    conn.commit()
    conn.close()


async def _visit(base: str, wanted: dict[str, str], times: int) -> dict[str, float]:
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(base, cookie_jar=jar) as session:
        async with session.get("/civicrm/login") as answer:
            token = re.findall(r'name="token" value="(\w+)"', await answer.text())[0]
        form = {"token": token, "user": "bench", "user_key": KEY}
        async with session.post("/civicrm/login", data=form, allow_redirects=False) as answer:
            if answer.status != 303:
                raise SystemExit(f"no log-in: HTTP {answer.status}")
        return {name: await _one(session, name, path, times) for name, path in wanted.items()}


async def _one(session: aiohttp.ClientSession, name: str, path: str, times: int) -> float:
    taken = []
    for _ in range(times + WARM):
        begun = time.perf_counter()
        async with session.get(path) as answer:
            await answer.read()
            if answer.status != 200:
                raise SystemExit(f"{name}: {path} answered with HTTP {answer.status}")
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken[WARM:])


def report(found: dict[int, dict[str, float]], rows: int) -> None:
    """The table, and the same as JSON."""
    table = Table("page", f"{FEW} rows, ms", f"{rows:,} rows, ms", "times")
    for name, few in found[FEW].items():
        many = found[rows][name]
        table.add_row(name, f"{few:.1f}", f"{many:.1f}", f"{many / few:.1f}")
    Console(width=100).print(table)
    results.save("screens", {"pages": {str(rows): pages for rows, pages in found.items()}})


if __name__ == "__main__":
    main()
