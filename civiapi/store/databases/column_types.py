"""Column types that give the same values on SQLite and MariaDB."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    Dialect,
    Integer,
    LargeBinary,
    String,
    Text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

from civiapi.store.text.collation import NAME as UTF8
from civiapi.store.text.encoded_text import EncodedText


def text_column(length: int) -> TypeEngine[str]:
    """A short text that people write; it compares by CiviCRM's collation (on SQLite by ``collation.compare``)."""
    return String(length).with_variant(String(length, collation=UTF8), "sqlite")


def code_column(length: int) -> TypeEngine[str]:
    """A short text that programs write: an id, a status, one of a list of options; case is ignored.

    On SQLite its indexes are compared without a call into Python, which matters for those of the sync. Codes are ASCII,
    so they compare the same on MariaDB, where both kinds of columns have CiviCRM's collation.
    """
    return String(length).with_variant(String(length, collation="NOCASE"), "sqlite")


def long_text() -> TypeEngine[str]:
    """Text without a limit, compared by CiviCRM's collation."""
    return Text().with_variant(Text(collation=UTF8), "sqlite").with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def civicrm_text(length: int) -> TypeEngine[str]:
    """A short text in a table of CiviCRM, which is stored encoded; *length* counts the stored characters."""
    return EncodedText(text_column(length))


def civicrm_long_text() -> TypeEngine[str]:
    """Text without a limit in a table of CiviCRM, which is stored encoded. HTML and serialized values are not."""
    return EncodedText(long_text())


def flag() -> TypeEngine[int]:
    """0 or 1, a number as in CiviCRM and not a boolean."""
    return Integer().with_variant(mysql.TINYINT(1), "mysql", "mariadb")


def row_id() -> TypeEngine[int]:
    """A row id, unsigned on MariaDB so that foreign keys to CiviCRM's tables are accepted."""
    return Integer().with_variant(mysql.INTEGER(10, unsigned=True), "mysql", "mariadb")


def signed() -> TypeEngine[int]:
    """A whole number of 32 bits."""
    return Integer()


def big_number() -> TypeEngine[int]:
    """A whole number of 64 bits."""
    return Integer().with_variant(mysql.BIGINT(), "mysql", "mariadb")


def bounds(kind: TypeEngine[Any]) -> tuple[int, int]:
    """The least and the greatest number that a column of whole numbers holds on MariaDB."""
    stored = kind.dialect_impl(_MYSQL)
    bits = next((bits for name, bits in _BITS.items() if isinstance(stored, name)), 32)
    if getattr(stored, "unsigned", False):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


_MYSQL = mysql.dialect()
_BITS = {mysql.TINYINT: 8, mysql.SMALLINT: 16, mysql.BIGINT: 64}


def blob() -> TypeEngine[bytes]:
    """Bytes of any length up to 16 MB."""
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")


class SiteTime(TypeDecorator[str]):
    """A site time as text ``YYYY-MM-DD HH:MM:SS``; on MariaDB a ``datetime`` or ``timestamp``, read as text."""

    impl = String(19)
    cache_ok = True

    def __init__(self, *, timestamp: bool = False) -> None:
        super().__init__()
        self.timestamp = timestamp

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.TIMESTAMP() if self.timestamp else mysql.DATETIME())
        return dialect.type_descriptor(String(19))

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value.isoformat(" ", "seconds") if isinstance(value, datetime) else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return None if dialect.name == "sqlite" else super().result_processor(dialect, coltype)  # is text already


class SiteDate(TypeDecorator[str]):
    """A date as text ``YYYY-MM-DD``."""

    impl = String(10)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(mysql.DATE() if dialect.name in ("mysql", "mariadb") else String(10))

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value.isoformat() if isinstance(value, date) else value
