"""The floor: the same members, the same pages, the same rows, through http.client, orjson and the plain driver.

No comparing, no resuming, no claims, no history looked at: what is left is reading the pages and writing the rows.
``python -m bench.floor_sync CASE JSON`` prints one line of JSON; ``bench.sync`` runs it beside each case of ours.
"""

import asyncio
import gzip
import http.client
import io
import sqlite3
import sys
import tarfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import md5
from secrets import token_hex
from typing import Any
from urllib.parse import urlencode, urlsplit

import asyncmy
import orjson
from sqlalchemy import make_url

from bench.measure import measuring, peak_mb
from civiapi.store.text import collation

FIELDS = "members.id,members.email_address,members.contact_id,members.status,"
FIELDS += "members.merge_fields,members.interests,members.last_changed,total_items"
RECEIVES = "('subscribed', 'pending')"
GROUP = 1
AT = "2026-01-01 00:00:00"
POLL_S = 0.05
AT_ONCE = 1000
SESSION = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_unicode_ci",
    "SET sql_mode = 'PIPES_AS_CONCAT'",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
)


class Link:
    """One kept-open connection to Mailchimp."""

    def __init__(self, base_url: str, key: str) -> None:
        parts = urlsplit(base_url)
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port)
        self._root = parts.path
        self._headers = {"Authorization": "Basic " + b64encode(f"floor:{key}".encode()).decode()}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer to one request."""
        content = None if body is None else orjson.dumps(body)
        headers = self._headers | {"Accept-Encoding": "gzip", "Content-Type": "application/json"}
        self._http.request(method, self._root + path, content, headers)
        answer = self._http.getresponse()
        data = answer.read()
        return orjson.loads(gzip.decompress(data) if answer.headers["Content-Encoding"] == "gzip" else data)

    def fetch(self, url: str) -> bytes:
        """The bytes behind a link of the same server."""
        parts = urlsplit(url)
        self._http.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
        return self._http.getresponse().read()

    def pages(self, list_id: str) -> Iterator[list[dict[str, Any]]]:
        """Every page of an audience, those without archived members first."""
        for status in ({}, {"status": "archived"}):
            offset, total = 0, 1
            while offset < total:
                query = urlencode({"count": 1000, "offset": offset, "fields": FIELDS, **status})
                page = self.ask("GET", f"/lists/{list_id}/members?{query}")
                total = page["total_items"]
                offset += len(page["members"]) or total
                yield page["members"]


class Rows:
    """What a statement found, all of it."""

    def __init__(self, found: Sequence[Any], lastrowid: int) -> None:
        self._found = list(found)
        self.lastrowid = lastrowid

    def __iter__(self) -> Iterator[Any]:
        return iter(self._found)

    def fetchone(self) -> Any:
        """The next row; None: no more."""
        return self._found.pop(0) if self._found else None

    def fetchmany(self, count: int) -> list[Any]:
        """The next rows."""
        part, self._found = self._found[:count], self._found[count:]
        return part


class PlainConnection:
    """A connection to MariaDB with the methods of sqlite3's that the floor uses: asyncmy, no pool, no SQLAlchemy.

    Many rows are sent in statements of a thousand, as a careful program would.
    """

    def __init__(self, url: str) -> None:
        parts = make_url(url)
        self._loop = asyncio.new_event_loop()
        self._db = self._loop.run_until_complete(
            asyncmy.connect(host=parts.host, port=parts.port or 3306, user=parts.username, db=parts.database)
        )
        for statement in SESSION:
            self.execute(statement)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Rows:
        """Run one statement; its values stand as ``?``."""
        return self._loop.run_until_complete(self._execute(statement.replace("?", "%s"), values))

    async def _execute(self, statement: str, values: Sequence[Any]) -> Rows:
        async with self._db.cursor() as cursor:
            await cursor.execute(statement, tuple(values) or None)
            return Rows(await cursor.fetchall() if cursor.description else (), cursor.lastrowid)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows, or set one column of rows by their id, in a few statements."""
        for part in _batched(rows):
            values = [value for row in part for value in row]
            self.execute(_for_many(statement, len(part)), values)

    def cursor(self) -> "PlainConnection":
        """Itself: what was found is read at once, so that other statements can follow."""
        return self

    def close(self) -> None:
        """Close it."""
        self._db.close()
        self._loop.close()


def _batched(rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    listed = list(rows)
    for start in range(0, len(listed), AT_ONCE):
        yield listed[start : start + AT_ONCE]


def _for_many(statement: str, count: int) -> str:
    if statement.startswith("INSERT"):
        head, _, row = statement.partition(" VALUES ")
        return f"{head} VALUES {', '.join([row] * count)}"
    head, _, change = statement.partition(" SET ")  # UPDATE t SET c = ? WHERE id = ?
    column = change.partition(" = ")[0]
    pairs = "SELECT ? AS v, ? AS i" + " UNION ALL SELECT ?, ?" * (count - 1)
    return f"{head} AS t JOIN ({pairs}) AS x ON t.id = x.i SET t.{column} = x.v"


def open_database(path: str) -> Any:
    """A plain connection, as durable as ours, to a file or MariaDB's URL.

    A file's texts of our tables cannot be read or written without their collation.
    """
    if "://" in path:
        return PlainConnection(path)
    conn = sqlite3.connect(path, isolation_level=None)
    collation.register(conn)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = NORMAL")
    return conn


def fetch(conn: Any, link: Link, list_id: str) -> int:
    """Members to cache rows, with the row beside each that keeps Mailchimp's contact id."""
    count = 0
    for members in link.pages(list_id):
        conn.execute("BEGIN")
        first = (conn.execute("SELECT max(id) FROM civicrm_mailchimpsync_cache").fetchone()[0] or 0) + 1
        rows = [
            (n, list_id, m["id"], m["email_address"], m["status"], m["last_changed"][:19], known(m))
            for n, m in enumerate(members, first)
        ]
        conn.executemany(
            "INSERT INTO civicrm_mailchimpsync_cache (id, mailchimp_list_id, mailchimp_member_id, mailchimp_email,"
            " mailchimp_status, mailchimp_updated, mailchimp_data, sync_status) VALUES (?, ?, ?, ?, ?, ?, ?, 'todo')",
            rows,
        )
        conn.executemany(
            "INSERT INTO civiapi_member (cache_id, contact_id, seen) VALUES (?, ?, 1)",
            [(n, m["contact_id"]) for n, m in enumerate(members, first)],
        )
        conn.execute("COMMIT")
        count += len(members)
    return count


def known(member: dict[str, Any]) -> bytes:
    """What is kept of a member, as PHP serializes it."""
    merges = member["merge_fields"]
    at = member["last_changed"]
    at = f's:14:"{at[:4]}{at[5:7]}{at[8:10]}{at[11:13]}{at[14:16]}{at[17:19]}";'
    status, first, last = member["status"], merges.get("FNAME") or "", merges.get("LNAME") or ""
    return (
        f'a:6:{{s:6:"status";s:{len(status)}:"{status}";s:7:"status@";{at}'
        f's:10:"first_name";s:{len(first.encode())}:"{first}";s:11:"first_name@";{at}'
        f's:9:"last_name";s:{len(last.encode())}:"{last}";s:10:"last_name@";{at}}}'
    ).encode()


def first_sync_known(conn: Any, link: Link, list_id: str) -> int:
    """Fetch, match by address, keep the state of each."""
    count = fetch(conn, link, list_id)
    by_index = isinstance(conn, sqlite3.Connection)  # whose index of addresses holds keys
    alike = "text_key(e.email) = text_key(mailchimp_email)" if by_index else "e.email = mailchimp_email"
    conn.execute("BEGIN")
    conn.execute(
        "UPDATE civicrm_mailchimpsync_cache SET civicrm_contact_id = (SELECT min(e.contact_id) FROM civicrm_email e"
        f" JOIN civicrm_contact c ON c.id = e.contact_id WHERE {alike} AND c.is_deleted = 0)"
    )
    _settle(conn)
    conn.execute("COMMIT")
    return count


def first_sync_new(conn: Any, link: Link, list_id: str) -> int:
    """Fetch, and make contact, address, group contact and history of everybody who gets mail."""
    count = fetch(conn, link, list_id)
    conn.execute("BEGIN")
    rows = conn.execute(
        "SELECT id, mailchimp_email, mailchimp_data FROM civicrm_mailchimpsync_cache"
        f" WHERE mailchimp_status IN {RECEIVES} ORDER BY id"
    )
    contact_id = (conn.execute("SELECT max(id) FROM civicrm_contact").fetchone()[0] or 0) + 1
    while part := rows.fetchmany(1000):
        people = []
        for number, (cache_id, email, data) in enumerate(part, contact_id):
            parts = data.decode().split('"')
            first, last = parts[11], parts[19]
            people.append(
                (number, first, last, f"{first} {last}", f"{last}, {first}", token_hex(16), cache_id, email.lower())
            )
        contact_id += len(part)
        conn.executemany(
            "INSERT INTO civicrm_contact (id, contact_type, first_name, last_name, display_name, sort_name, hash,"
            f" created_date, modified_date) VALUES (?, 'Individual', ?, ?, ?, ?, ?, '{AT}', '{AT}')",
            [one[:6] for one in people],
        )
        conn.executemany(
            "INSERT INTO civicrm_email (contact_id, location_type_id, email, is_primary, on_hold)"
            " VALUES (?, 1, ?, 1, 0)",
            [(one[0], one[7]) for one in people],
        )
        conn.executemany(
            "UPDATE civicrm_mailchimpsync_cache SET civicrm_contact_id = ? WHERE id = ?",
            [(one[0], one[6]) for one in people],
        )
    inside = f"FROM civicrm_mailchimpsync_cache WHERE mailchimp_status IN {RECEIVES} ORDER BY id"
    conn.execute(
        "INSERT INTO civicrm_group_contact (group_id, contact_id, status)"
        f" SELECT {GROUP}, civicrm_contact_id, 'Added' {inside}"
    )
    conn.execute(
        "INSERT INTO civicrm_subscription_history (contact_id, group_id, date, method, status)"
        f" SELECT civicrm_contact_id, {GROUP}, '{AT}', 'MCsync', 'Added' {inside}"
    )
    _settle(conn)
    conn.execute("COMMIT")
    return count


def _settle(conn: Any) -> None:
    conn.execute(
        "UPDATE civicrm_mailchimpsync_cache SET sync_status = 'ok', civicrm_groups ="
        f" (SELECT '{GROUP};' || h.status || ';' || h.date FROM civicrm_subscription_history h"
        f" WHERE h.contact_id = civicrm_contact_id AND +h.group_id = {GROUP} ORDER BY h.id DESC LIMIT 1)"
    )


def push(conn: Any, link: Link, list_id: str) -> int:
    """Everybody in the group to Mailchimp in batches of a thousand, and the answers into their rows."""
    people = conn.cursor().execute(
        "SELECT c.id, c.first_name, c.last_name, e.email FROM civicrm_group_contact g"
        " JOIN civicrm_contact c ON c.id = g.contact_id JOIN civicrm_email e ON e.contact_id = c.id"
        f" WHERE g.group_id = {GROUP} AND g.status = 'Added' ORDER BY c.id"
    )
    count = 0
    while part := people.fetchmany(1000):
        conn.execute("BEGIN")
        first = (conn.execute("SELECT max(id) FROM civicrm_mailchimpsync_cache").fetchone()[0] or 0) + 1
        first_update = (conn.execute("SELECT max(id) FROM civicrm_mailchimpsync_update").fetchone()[0] or 0) + 1
        batch_id = conn.execute(
            "INSERT INTO civicrm_mailchimpsync_batch (mailchimp_list_id) VALUES (?)", (list_id,)
        ).lastrowid
        operations, updates, details = [], [], []
        for number, (_, given, family, email) in enumerate(part):
            path = f"members/{md5(email.encode(), usedforsecurity=False).hexdigest()}"
            body = {"email_address": email, "status_if_new": "subscribed", "status": "subscribed"}
            body["merge_fields"] = {"FNAME": given, "LNAME": family}
            text = orjson.dumps(body).decode()
            operations.append(
                {
                    "method": "PUT",
                    "path": f"/lists/{list_id}/{path}",
                    "operation_id": f"{first + number}-{first_update + number}",
                    "params": {"skip_merge_validation": "true"},
                    "body": text,
                }
            )
            updates.append((first_update + number, first + number, batch_id, text))
            details.append((first_update + number, path))
        conn.executemany(
            "INSERT INTO civicrm_mailchimpsync_cache (id, mailchimp_list_id, civicrm_contact_id, sync_status)"
            " VALUES (?, ?, ?, 'live')",
            [(first + number, list_id, row[0]) for number, row in enumerate(part)],
        )
        conn.executemany(
            "INSERT INTO civicrm_mailchimpsync_update (id, mailchimpsync_cache_id, mailchimpsync_batch_id, data)"
            " VALUES (?, ?, ?, ?)",
            updates,
        )
        conn.executemany("INSERT INTO civiapi_update (update_id, path_tail, cause_s) VALUES (?, ?, 0)", details)
        conn.execute("COMMIT")
        answer = link.ask("POST", "/batches", {"operations": operations})
        while (answer := link.ask("GET", f"/batches/{answer['id']}"))["status"] != "finished":
            time.sleep(POLL_S)
        _take_results(conn, link.fetch(answer["response_body_url"]))
        conn.execute("BEGIN")
        conn.execute(
            "UPDATE civicrm_mailchimpsync_batch SET response_processed = 2, status = 'finished' WHERE id = ?",
            (batch_id,),
        )
        conn.execute("COMMIT")
        count += len(part)
    return count


def _take_results(conn: Any, archive: bytes) -> None:
    rows, done, members = [], [], []
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for entry in tar:
            held = tar.extractfile(entry)
            content = held.read() if held is not None else b""
            for result in orjson.loads(content) if content else ():
                cache_id, _, update_id = result["operation_id"].partition("-")
                member = orjson.loads(result["response"])
                rows.append(
                    (
                        member["id"],
                        member["email_address"],
                        member["status"],
                        member["last_changed"],
                        known(member),
                        cache_id,
                    )
                )
                done.append((update_id,))
                members.append((cache_id, member["contact_id"]))
    conn.execute("BEGIN")
    conn.executemany(
        "UPDATE civicrm_mailchimpsync_cache SET mailchimp_member_id = ?, mailchimp_email = ?, mailchimp_status = ?,"
        " mailchimp_updated = ?, mailchimp_data = ?, sync_status = 'ok' WHERE id = ?",
        rows,
    )
    conn.executemany("UPDATE civicrm_mailchimpsync_update SET completed = 1 WHERE id = ?", done)
    conn.executemany("INSERT INTO civiapi_member (cache_id, contact_id) VALUES (?, ?)", members)
    conn.execute("COMMIT")


def full_again(conn: Any, link: Link, list_id: str) -> int:
    """Every page once more, each member compared with its row; nothing is written."""
    changed = 0
    for members in link.pages(list_id):
        ids = [m["id"] for m in members]
        rows = conn.execute(
            "SELECT mailchimp_member_id, mailchimp_data FROM civicrm_mailchimpsync_cache"
            f" WHERE mailchimp_list_id = ? AND mailchimp_member_id IN ({','.join('?' * len(ids))})",
            (list_id, *ids),
        )
        kept = dict(rows.fetchall())
        changed += sum(kept.get(m["id"]) != known(m) for m in members)
    return changed


CASES: dict[str, Callable[[sqlite3.Connection, Link, str], int]] = {
    "known": first_sync_known,
    "new": first_sync_new,
    "push": push,
    "full_again": full_again,
}


def main() -> None:
    """Run one case and print what it took."""
    given = orjson.loads(sys.argv[2])
    conn = open_database(given["database"])
    link = Link(given["mailchimp"], given["key"])
    with measuring() as took:
        count = CASES[sys.argv[1]](conn, link, given["list_id"])
    conn.close()
    sys.stdout.write(
        orjson.dumps({"rows": count, "wall": took.wall, "cpu": took.cpu, "peak_mb": peak_mb()}).decode() + "\n"
    )


if __name__ == "__main__":
    main()
