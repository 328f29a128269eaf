"""What an error of SQLite, MariaDB or their drivers means: busy, lost, not unique, no such reference, unusable."""

import re

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from civiapi.store.errors import ConstraintBroken, NoSuchReference, NotUnique, StoreBusy, StoreError, StoreUnusable

log = structlog.get_logger(__name__)

MAX_LOGGED = 300  # characters of a statement, which has no values in it

_UNIQUE = re.compile(r"UNIQUE constraint|Duplicate entry|\b1062\b", re.I)
_REFERENCE = re.compile(r"FOREIGN KEY constraint|foreign key constraint fails|\b145[12]\b|\b121[67]\b", re.I)
_MISSING = re.compile(r"^\(1364\b")  # a column that needs a value was given none: an IntegrityError on SQLite alone
# 1213 deadlock (on Galera also a commit that another node was ahead of), 1205 lock wait, 1040 and 1203 too many
# connections, 1047 a node that is not ready
_BUSY = re.compile(r"database (table )?is locked|^\((1213|1205|1040|1203|1047)\b|Deadlock", re.I)
_LOST = re.compile(r"\b(2006|2013|2003|2055|1927|1317)\b|Lost connection|server has gone away|Connection.*closed", re.I)


def is_busy(error: Exception) -> bool:
    """Whether another transaction was in the way, so that the unit can be repeated."""
    return bool(_BUSY.search(_message(error)))


def is_lost(error: SQLAlchemyError) -> bool:
    """Whether the connection was lost."""
    return isinstance(error, DBAPIError) and bool(error.connection_invalidated or _LOST.search(str(error.orig)))


_DENIED = re.compile(r"([a-z][a-z ]*) command denied to user", re.I)
_DENIED_TABLE = re.compile(r" for table (?:[`'][^`']*[`']\.)?[`']([^`']+)[`']\W*$")
_UNUSABLE = {  # the first that is met: texts about users have their names in them
    "' to database '": "its user has no rights to it",
    "Access denied; you need": "its user lacks a right of the server",
    "account is locked": "its user is locked",
    "Access denied": "the user name or password is refused, or the server asks for TLS (ssl_ca in its address)",
    "secure transport": "the server asks for TLS (ssl_ca in its address)",
    "specified as a definer": "a view or a trigger in it belongs to a user that its server does not have",
    "Hostname mismatch": "the server's certificate is one for another host",
    "certificate has expired": "the server's certificate has expired",
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not one that ssl_ca in its address vouches for",
    "is locked": "it is locked by another process",
    "readonly": "it is read-only",
    "read-only option": "it is read-only",
    "read_only": "it is read-only",
    "BINLOG_FORMAT = STATEMENT": "its server logs changes as statements; set binlog_format to MIXED or ROW",
    "unable to open": "it cannot be opened",
    "disk is full": "the disk is full",
    "malformed": "it is corrupt; restore a backup (civiapi backup makes them)",
    "not a database": "the file is not a database",
    "disk I/O error": "the disk cannot be read or written",
    "Unknown database": "there is no such database",
    "Can't connect": "the server does not answer",
    "getaddrinfo": "the server does not answer",
}


_UNFIT = {"1264", "1292", "1366", "1406"}
"""MariaDB's codes for a value that is out of range, no date, no such number or text, or too long."""
_COLUMN = re.compile(r"for column \S*?(\w+)\W* at row \d+\W*$")
_NOT_THERE = {
    "table": re.compile(r"no such table: (?:main\.)?(\w+)|Table '(?:[^']*\.)?([^'.]+)' doesn't exist"),
    "column": re.compile(r"no such column: ([\w.]+)|Unknown column '([^']+)' in "),
}
"""The texts of SQLite and of MariaDB, by what is not in the database."""
_WRITTEN = re.compile(r"^\s*(?:INSERT\b.*?\bINTO|REPLACE\s+INTO|UPDATE|DELETE\s+FROM)\s+[`\"]?(\w+)", re.I)


def _message(error: Exception) -> str:
    """The driver's message; SQLAlchemy's text contains the SQL."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def translate(error: Exception) -> StoreError:
    """The ``StoreError`` for an exception of the driver or SQLAlchemy; its text contains no SQL and no value.

    An error that nothing here expects is logged with its statement: nobody could find its cause otherwise.
    """
    text = _message(error)
    if _UNIQUE.search(text):
        return NotUnique("already exists", _table_of(error))
    if _REFERENCE.search(text):
        return NoSuchReference("constraint violation", _table_of(error))
    if isinstance(error, IntegrityError) or _MISSING.search(text):
        return ConstraintBroken("constraint violation", _table_of(error))
    if is_busy(error):
        return StoreBusy("the database is locked by another process; try again")
    if reason := why_unusable(error):
        return StoreUnusable(f"The database cannot be used: {reason}.")
    code = _code(error)
    statement = str(getattr(error, "statement", None) or "")[:MAX_LOGGED]
    log.error("the database refused a statement", error=code or type(error).__name__, statement=statement)
    if code in _UNFIT and (column := _COLUMN.search(text)):
        return StoreError(f"a value does not fit the column {column[1]}")
    for kind, sign in _NOT_THERE.items():
        if named := sign.search(text):
            return StoreError(f"the database has no {kind} {named[1] or named[2]}")
    return StoreError(f"database error {code}".rstrip())


def _table_of(error: Exception) -> str:
    """The table that the statement of an error writes to; ``""`` where that is not known."""
    written = _WRITTEN.match(str(getattr(error, "statement", None) or ""))
    return written[1] if written else ""


def _code(error: Exception) -> str:
    """The driver's code of an error, such as 1064 or SQLITE_ERROR; ``""`` without one. Its text may contain values."""
    orig = error.orig if isinstance(error, DBAPIError) else error
    known = getattr(orig, "sqlite_errorname", None) or next(iter(getattr(orig, "args", ())), None)
    return str(known) if isinstance(known, int) or str(known).startswith("SQLITE_") else ""


def why_unusable(error: Exception) -> str:
    """Why a database cannot be used at all, as text after a colon; ``""`` for any other error."""
    text = _message(error)
    if denied := _DENIED.search(text):
        table = _DENIED_TABLE.search(text)
        return f"its user lacks the right {denied[1].strip().upper()}{f' on {table[1]}' if table else ''}"
    lowered = text.lower()
    return next((reason for sign, reason in _UNUSABLE.items() if sign.lower() in lowered), "")
