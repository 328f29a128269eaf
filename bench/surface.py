"""Requests a second of the API's surface, beside what aiohttp and sqlite3 can do at all, in the same run.

``python -m bench.surface [--seconds 3]`` prints a table and writes ``bench-results/surface.json``.
"""

import argparse
import asyncio
import json
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, insert

from bench.load import Load, fire, post
from civiapi.app import open_app
from civiapi.call import Call
from civiapi.settings import load_settings
from sync import tables

ROWS = 100_000
STOCK = 62  # Contact.get a second of a stock CiviCRM on such a machine (issue 3)
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


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        config, port = settings_file(Path(folder))
        answers = asyncio.run(fill(config))
        with running([sys.executable, "-m", "civiapi", "serve", "--config", str(config)], port):
            ours = {way: measure_ours(way, port, seconds) for way in ("REST", "JSON-RPC")}
        floor_port = free_port()
        command = [sys.executable, "-m", "bench.floor", str(floor_port), str(Path(folder) / "bench.sqlite")]
        with running(command, floor_port, feed=json.dumps(answers).encode()):
            floors = {kind: measure_floor(kind, floor_port, seconds) for kind in ("bare", "sql")}
    report(ours, floors)


def settings_file(folder: Path) -> tuple[Path, int]:
    """A settings file for a server on a database in *folder*."""
    port = free_port()
    path = folder / "settings.ini"
    path.write_text(
        f"[server]\nport = {port}\nsite_key = bench-site-key\n[database]\nurl = sqlite:///{folder}/bench.sqlite\n"
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


def measure_ours(way: str, port: int, seconds: float) -> dict[str, dict[int, Load]]:
    """Each call over one transport, one at a time and eight at a time."""
    return {name: _both(port, _request(way, *call), seconds) for name, call in CALLS.items()}


def _request(way: str, entity: str, action: str, params: dict[str, Any]) -> bytes:
    headers = {"X-Civi-Auth": f"Bearer {KEY}"}
    if way == "REST":
        form = urlencode({"entity": entity, "action": action, "json": json.dumps(params)}).encode()
        return post("/civicrm/ajax/rest", form, "application/x-www-form-urlencoded", headers)
    call = {"jsonrpc": "2.0", "id": 1, "method": f"{entity}.{action}", "params": params}
    return post("/jsonrpc", json.dumps(call).encode(), "application/json", headers)


def measure_floor(kind: str, port: int, seconds: float) -> dict[str, dict[int, Load]]:
    """The same bytes from a bare handler, or with the same SQL through sqlite3."""
    body = _request("REST", *CALLS["Contact.get"]).partition(b"\r\n\r\n")[2]
    kind_of_body = "application/x-www-form-urlencoded"
    return {name: _both(port, post(f"/{kind}/{name}", body, kind_of_body, {}), seconds) for name in CALLS}


def _both(port: int, request: bytes, seconds: float) -> dict[int, Load]:
    fire(("127.0.0.1", port), request, concurrency=8, seconds=0.3)  # warms caches on both sides
    return {many: fire(("127.0.0.1", port), request, concurrency=many, seconds=seconds) for many in (1, 8)}


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


def _commit() -> str:
    shown = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    return shown.stdout.strip()


Figures = dict[str, dict[str, dict[int, Load]]]


def report(ours: Figures, floors: Figures) -> None:
    """The table, and the same as JSON with what it was measured on."""
    table = Table("call", "over", "at once", "a second", "bare aiohttp", "with sqlite3", "of bare", "of sqlite3")
    rows = []
    for way, calls in ours.items():
        for name, loads in calls.items():
            for many, load in loads.items():
                bare, sql = (floors[kind][name][many].per_second for kind in ("bare", "sql"))
                if load.refused:
                    raise SystemExit(f"{name} over {way}: {load.refused} answers were not HTTP 200")
                rows.append(
                    {
                        "call": name,
                        "over": way,
                        "at_once": many,
                        "per_second": round(load.per_second),
                        "bare": round(bare),
                        "sqlite3": round(sql),
                    }
                )
                table.add_row(
                    name,
                    way,
                    str(many),
                    f"{load.per_second:,.0f}",
                    f"{bare:,.0f}",
                    f"{sql:,.0f}",
                    f"{load.per_second / bare:.2f}",
                    f"{load.per_second / sql:.2f}",
                )
    console = Console(width=120)
    console.print(table)
    get = next(r for r in rows if r["call"] == "Contact.get" and r["over"] == "REST" and r["at_once"] == 8)
    console.print(
        f"Contact.get over REST, 8 at once: {get['per_second'] / get['bare']:.2f} of the bare handler (bar 0.25), "
        f"{get['per_second'] / STOCK:.0f} times a stock CiviCRM's {STOCK} a second (bar 40)."
    )
    commit = _commit()
    found = {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "commit": commit,
        "rows": rows,
    }
    out = Path("bench-results")
    out.mkdir(exist_ok=True)
    (out / "surface.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
