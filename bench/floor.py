"""What the surface is held against: a bare aiohttp handler, and one that runs the same SQL through plain sqlite3.

Run by ``bench.surface`` in a process of its own: ``python -m bench.floor PORT DATABASE``.
"""

import sqlite3
import sys

import orjson
from aiohttp import web

SQL = {
    "Contact.get": ("SELECT id, display_name, first_name, last_name FROM civicrm_contact WHERE id = 2", False),
    "Contact.create": ("INSERT INTO civicrm_contact (contact_type, display_name) VALUES ('Individual', 'x')", True),
    "MailchimpsyncCache.get": (
        "SELECT * FROM civicrm_mailchimpsync_cache WHERE mailchimp_list_id = 'bench' ORDER BY id LIMIT 25",
        False,
    ),
    "Setting.getvalue": ("SELECT value FROM civicrm_setting WHERE name = 'mailchimpsync_config'", False),
}
EMAIL = "INSERT INTO civicrm_email (contact_id, email, is_primary) VALUES (?, 'x@example.org', 1)"


def make(database: str, answers: dict[str, bytes]) -> web.Application:
    """``/bare/NAME`` gives the bytes of that answer; ``/sql/NAME`` reads (or writes) the rows first."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")

    async def bare(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answers[request.match_info["name"]], content_type="application/json")

    async def sql(request: web.Request) -> web.Response:
        await request.read()
        statement, writes = SQL[request.match_info["name"]]
        if writes:
            db.execute("BEGIN IMMEDIATE")
            made = db.execute(statement).lastrowid
            db.execute(EMAIL, (made,))
            db.execute("COMMIT")
            rows = [[made]]
        else:
            rows = db.execute(statement).fetchall()
        shown = [[one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in row] for row in rows]
        return web.Response(body=orjson.dumps({"is_error": 0, "values": shown}), content_type="application/json")

    app = web.Application()
    app.router.add_post("/bare/{name}", bare)
    app.router.add_post("/sql/{name}", sql)
    return app


def main() -> None:
    """Serve until killed; the answers to give come as JSON on standard input."""
    answers = {name: orjson.dumps(value) for name, value in orjson.loads(sys.stdin.buffer.read()).items()}
    web.run_app(make(sys.argv[2], answers), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
