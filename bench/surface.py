"""Requests a second of the API's surface, beside what aiohttp and the driver can do at all, in the same run.

``python -m bench.surface [--database mariadb] [--turns 3] [--seconds 1]`` prints a table, writes it to
``bench/results/``, and adds a line to ``bench/history.jsonl``, so that a fall is seen.
"""

import argparse
import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, insert

from bench import results
from bench.load import fire, post
from bench.measure import described
from civiapi.api.call import Call
from civiapi.app import open_app
from civiapi.settings import load_settings
from sync.store import tables

ROWS = 100_000
CONFIG = {
    "accounts": {"0123456789abcdef0123456789abcdef-us1": {"audiences": {"bench": {"name": "Bench"}}}},
    "lists": {"bench": {"apiKey": "0123456789abcdef0123456789abcdef-us1", "subscriptionGroup": 1, "interests": {}}},
}
CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Contact.get": ("Contact", "get", {"id": 2, "return": "display_name,first_name,last_name"}),
    "Contact.create": (
        "Contact",
        "create",
        {"contact_type": "Individual", "first_name": "Ada", "email": "a@example.org"},
    ),
    "MailchimpsyncCache.get": ("MailchimpsyncCache", "get", {"mailchimp_list_id": "bench"}),
    "Setting.getvalue": ("Setting", "getvalue", {"name": "mailchimpsync_config"}),
}
KEY = "bench-api-key"
FELL = 0.85
"""Ratios below this part of the latest ones are marked."""


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="the length of one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "mariadb"), default="sqlite")
    wanted = parser.parse_args()
    about = described()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "bench.sqlite"
        url = stack.enter_context(mariadb()) if wanted.database == "mariadb" else ""
        config, port = settings_file(Path(folder), url or f"sqlite:///{file}")
        answers, floor_port = asyncio.run(fill(config)), free_port()
        command = [sys.executable, "-m", "bench.floor", str(floor_port), url or str(file)]
        with (
            running([sys.executable, "-m", "civiapi", "serve", "--config", str(config)], port),
            running(command, floor_port, feed=json.dumps(answers).encode()),
        ):
            rows = [
                measure(port, floor_port, way, name, many, wanted.turns, wanted.seconds)
                for way in ("REST", "JSON-RPC")
                for name in CALLS
                for many in (1, 8)
            ]
    report(rows, wanted.database, about)


@contextmanager
def mariadb() -> Iterator[str]:
    """The URL of a new database on the MariaDB at 127.0.0.1 (root, no password), dropped afterwards."""
    name = f"civiapi_bench_{os.getpid()}"
    command = ["mysql", "-uroot", "-h127.0.0.1", "-e"]
    subprocess.run([*command, f"CREATE DATABASE {name}"], check=True)  # noqa: S603  a command of our own
    try:
        yield f"mysql://root@127.0.0.1/{name}"
    finally:
        subprocess.run([*command, f"DROP DATABASE {name}"], check=True)  # noqa: S603  a command of our own


def settings_file(folder: Path, database: str) -> tuple[Path, int]:
    """A settings file in *folder* for a server on this database."""
    port = free_port()
    path = folder / "settings.ini"
    path.write_text(
        f"[server]\nport = {port}\nsite_key = bench-site-key\n[database]\nurl = {database}\n"
        f"[scheduler]\nenabled = no\n[log]\nlevel = error\n[user:bench]\napi_key = {KEY}\npermissions = *\n"
    )
    return path, port


async def fill(config: Path) -> dict[str, Any]:
    """Fill the database; what each call answers, for the bare handler to repeat."""
    async with open_app(load_settings(config)) as app:
        await app.store.write(_cache_rows)
        for entity, action, params in (
            ("Group", "create", {"title": "Bench"}),
            ("Contact", "create", {"contact_type": "Individual", "first_name": "Ada", "last_name": "Lovelace"}),
            ("Contact", "create", {"contact_type": "Individual", "first_name": "Grace", "last_name": "Hopper"}),
            ("Setting", "create", {"mailchimpsync_config": json.dumps(CONFIG)}),
        ):
            answer = await app.api.respond(Call(entity, action, params))
            if answer["is_error"]:
                raise SystemExit(f"{entity}.{action}: {answer['error_message']}")
        return {name: await app.api.respond(Call(*call)) for name, call in CALLS.items()}


def _cache_rows(conn: Connection) -> None:
    conn.execute(
        insert(tables.cache),
        [
            {
                "mailchimp_list_id": "bench",
                "mailchimp_member_id": f"{n:032x}",
                "mailchimp_email": f"member{n}@example.org",
                "mailchimp_status": "subscribed",
                "sync_status": "ok",
            }
            for n in range(ROWS)
        ],
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One call over one transport: requests a second, and the ratios to the two floors; medians of the turns."""

    call: str
    over: str
    at_once: int
    per_second: int
    bare: int
    driver: int
    of_bare: float
    of_driver: float


def measure(port: int, floor_port: int, way: str, name: str, many: int, turns: int, seconds: float) -> Row:
    """Ours, the bare handler and the one with the driver take turns of *seconds*: the machine drifts by the minute, so
    only what was measured side by side is compared."""
    requests = {"ours": (port, request_for(way, *CALLS[name]))}
    body = request_for("REST", *CALLS["Contact.get"]).partition(b"\r\n\r\n")[2]
    for kind in ("bare", "sql"):
        requests[kind] = floor_port, post(f"/{kind}/{name}", body, "application/x-www-form-urlencoded", {})
    for at, request in requests.values():
        fire(("127.0.0.1", at), request, concurrency=8, seconds=0.3)  # warms caches on both sides
    taken: dict[str, list[float]] = {kind: [] for kind in requests}
    for _ in range(turns):
        for kind, (at, request) in requests.items():
            load = fire(("127.0.0.1", at), request, concurrency=many, seconds=seconds)
            if load.refused:
                raise SystemExit(f"{name} over {way}: {load.refused} answers ({kind}) were not HTTP 200")
            taken[kind].append(load.per_second)
    return Row(
        name,
        way,
        many,
        *(round(median(taken[kind])) for kind in ("ours", "bare", "sql")),
        *(
            round(median(ours / floor for ours, floor in zip(taken["ours"], taken[kind], strict=True)), 3)
            for kind in ("bare", "sql")
        ),
    )


def request_for(way: str, entity: str, action: str, params: dict[str, Any]) -> bytes:
    headers = {"X-Civi-Auth": f"Bearer {KEY}"}
    if way == "REST":
        form = urlencode({"entity": entity, "action": action, "json": json.dumps(params)}).encode()
        return post("/civicrm/ajax/rest", form, "application/x-www-form-urlencoded", headers)
    call = {"jsonrpc": "2.0", "id": 1, "method": f"{entity}.{action}", "params": params}
    return post("/jsonrpc", json.dumps(call).encode(), "application/json", headers)


@contextmanager
def running(
    command: list[str], port: int, feed: bytes = b"", *, patience: float = 10.0, quiet: bool = False
) -> Iterator[None]:
    """A server in a process of its own, once it answers (within *patience* seconds), until left."""
    said = subprocess.DEVNULL if quiet else None
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said)  # noqa: S603  commands of our own
    try:
        if server.stdin is not None:
            server.stdin.write(feed)
            server.stdin.close()
        for _ in range(round(patience / 0.05)):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(15)


def free_port() -> int:
    """A port nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def report(rows: Sequence[Row], database: str, about: dict[str, Any]) -> None:
    """The table, beside the ratios of the latest run on such a machine; the same as JSON, and into the history."""
    machine = f"{platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores, {database}"
    before = latest(results.read_history(), machine)
    table = Table("call", "over", "at once", "a second", "bare", "plain driver", "of bare", "before", "of driver")
    for row in rows:
        known = before.get(key(row))
        fell = known is not None and row.of_bare < known * FELL
        table.add_row(
            row.call,
            row.over,
            str(row.at_once),
            *(f"{one:,}" for one in (row.per_second, row.bare, row.driver)),
            f"{row.of_bare:.2f}",
            "" if known is None else f"{known:.2f}{' FELL' if fell else ''}",
            f"{row.of_driver:.2f}",
        )
    Console(width=120).print(table)
    results.save(f"surface-{database}", about | {"rows": [asdict(row) for row in rows]})
    ratios = {key(row): row.of_bare for row in rows}
    results.add_to_history({"machine": machine, "commit": about["commit"], "of_bare": ratios})


def key(row: Row) -> str:
    """The name of a row in the history."""
    return f"{row.call} {row.over} {row.at_once}"


def latest(history: str, machine: str) -> dict[str, float]:
    """The ratios of the last run on such a machine; empty where there is none."""
    runs = [json.loads(line) for line in history.splitlines()]
    return next((dict(run["of_bare"]) for run in reversed(runs) if run["machine"] == machine and "of_bare" in run), {})


if __name__ == "__main__":
    main()
