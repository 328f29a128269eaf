"""What the surface is held against: a bare aiohttp handler, and one that runs the same SQL through the plain driver.

Run by ``bench.surface`` in a process of its own: ``python -m bench.floor PORT DATABASE``, a file or MariaDB's URL.
"""

import sys
from typing import Any

import orjson
from aiohttp import web
from asyncmy import create_pool
from sqlalchemy import make_url

from bench.floor_sync import open_database

SQL = {
    "Contact.get": ("SELECT id, display_name, first_name, last_name FROM civicrm_contact WHERE id = 2", False),
    "Contact.create": ("INSERT INTO civicrm_contact (contact_type, display_name) VALUES ('Individual', 'x')", True),
    "MailchimpsyncCache.get": (
        "SELECT * FROM civicrm_mailchimpsync_cache WHERE mailchimp_list_id = 'bench' ORDER BY id LIMIT 25",
        False,
    ),
    "Setting.getvalue": ("SELECT value FROM civicrm_setting WHERE name = 'mailchimpsync_config'", False),
}
EMAIL = "INSERT INTO civicrm_email (contact_id, email, is_primary) VALUES ({}, 'x@example.org', 1)"


class PlainSqlite:
    """The statements through sqlite3, on the event loop's thread."""

    def __init__(self, path: str) -> None:
        self._db = open_database(path)

    async def rows(self, statement: str, writes: bool) -> Any:
        """What it reads, or the id of the contact it made."""
        if not writes:
            return self._db.execute(statement).fetchall()
        self._db.execute("BEGIN IMMEDIATE")
        made = self._db.execute(statement).lastrowid
        self._db.execute(EMAIL.format(made))
        self._db.execute("COMMIT")
        return [[made]]


class PlainMaria:
    """The statements through asyncmy, each on a connection of its pool."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._pool: Any = None

    async def rows(self, statement: str, writes: bool) -> Any:
        """What it reads, or the id of the contact it made."""
        if self._pool is None:
            url = self._url
            self._pool = await create_pool(
                host=url.host, port=url.port or 3306, user=url.username, db=url.database, autocommit=True, maxsize=8
            )
        async with self._pool.acquire() as db, db.cursor() as cursor:
            if not writes:
                await cursor.execute(statement)
                return await cursor.fetchall()
            await db.begin()
            await cursor.execute(statement)
            made = cursor.lastrowid
            await cursor.execute(EMAIL.format(made))
            await db.commit()
            return [[made]]


def make(database: str, answers: dict[str, bytes]) -> web.Application:
    """``/bare/NAME`` gives the bytes of that answer; ``/sql/NAME`` reads (or writes) the rows first."""
    db = PlainMaria(database) if "://" in database else PlainSqlite(database)

    async def bare(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answers[request.match_info["name"]], content_type="application/json")

    async def sql(request: web.Request) -> web.Response:
        await request.read()
        rows = await db.rows(*SQL[request.match_info["name"]])
        shown = [[one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in row] for row in rows]
        body = orjson.dumps({"is_error": 0, "values": shown}, default=str)
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/bare/{name}", bare)
    app.router.add_post("/sql/{name}", sql)
    return app


def as_bytes(answer: Any) -> bytes:
    """An answer as the handlers give it."""
    return orjson.dumps(answer, option=orjson.OPT_NON_STR_KEYS)


def main() -> None:
    """Serve until killed; the answers to give come as JSON on standard input."""
    answers = {name: as_bytes(value) for name, value in orjson.loads(sys.stdin.buffer.read()).items()}
    web.run_app(make(sys.argv[2], answers), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
