"""The nonce of the key that signs tokens and sessions: random, shared by all processes on the database.

It is not a setting of CiviCRM, and no entity declares its table, so that no API call can read it.
"""

import secrets

from sqlalchemy import Connection, delete, insert, select

from civiapi.store.databases.dialect import insert_new
from civiapi.store.schema.tables import signing

NONCE_BYTES = 32
_ONLY = 1  # the table has one row


def find_nonce(conn: Connection) -> str | None:
    """The stored nonce; None before it was made."""
    return conn.execute(select(signing.c.nonce).where(signing.c.id == _ONLY)).scalar_one_or_none()


def make_nonce(conn: Connection) -> str:
    """The stored nonce, made if there is none; processes that do so at the same time get the same one."""
    insert_new(conn, signing, [{"id": _ONLY, "nonce": secrets.token_hex(NONCE_BYTES)}])
    return str(conn.execute(select(signing.c.nonce).where(signing.c.id == _ONLY)).scalar_one())


def replace_nonce(conn: Connection) -> None:
    """Store a new nonce, which invalidates everything signed with the present one."""
    conn.execute(delete(signing))
    conn.execute(insert(signing).values(id=_ONLY, nonce=secrets.token_hex(NONCE_BYTES)))
