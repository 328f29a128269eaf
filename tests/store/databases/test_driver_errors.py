"""What a database refuses us for, in words; the names that people gave to users and tables decide nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asyncmy.errors import DataError, OperationalError
from sqlalchemy.exc import IntegrityError

from civiapi.store.databases.driver_errors import translate
from civiapi.store.engine import Store
from civiapi.store.errors import ConstraintBroken, NoSuchReference, StoreError, StoreUnusable
from tests.support.databases import KINDS, a_store

REFUSED = "the user name or password is refused, or the server asks for TLS"


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (1045, "Access denied for user 'read_only'@'host' (using password: YES)", REFUSED),
        (1045, "Access denied for user 'malformed'@'is locked' (using password: NO)", REFUSED),
        (1044, "Access denied for user 'crm'@'%' to database 'crm'", "has no rights to it"),
        (1142, "INSERT command denied to user 'crm'@'%' for table `c`.`t`", "lacks the right INSERT"),
        (1142, "INSERT command denied to user 'crm'@'%' for table `c`.`log_t`", "lacks the right INSERT on log_t."),
        (1142, "SELECT, LOCK TABLES command denied to user 'crm'@'%' for table 't'", "LOCK TABLES on t."),
        (1142, "DROP command denied to user 'for table `x`'@'%'", "lacks the right DROP."),
        (1227, "Access denied; you need (at least one of) the SUPER privilege(s)", "lacks a right of the server"),
        (4151, "Access denied, this account is locked", "its user is locked"),
        (1449, "The user specified as a definer ('crm'@'old') does not exist", "that its server does not have"),
        (3159, "Connections using insecure transport are prohibited", "asks for TLS"),
        (1290, "The MariaDB server is running with the --read-only option", "it is read-only"),
        (2003, "Can't connect ([SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired)", "has expired"),
        (2003, "Can't connect ([SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate)", "vouches for"),
        (2003, "Can't connect to MySQL server on 'db' ([Errno 111])", "does not answer"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_us_for_is_said(code: int, text: str, reason: str) -> None:
    error = translate(OperationalError(code, text))
    assert reason in str(error)
    assert isinstance(error, StoreUnusable)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1264, "Out of range value for column 'weight' at row 1"),
        (1406, "Data too long for column 'weight' at row 3"),
        (
            1366,
            "Incorrect integer value: 'for column name at row 1' for column `crm`.`civicrm_group`.`weight` at row 1",
        ),
        (1292, "Incorrect datetime value: '2026-13-01' for column `crm`.`civicrm_group`.`weight` at row 1"),
    ],
)
def test_a_value_that_does_not_fit_is_said_with_its_column_and_not_shown(code: int, text: str) -> None:
    assert str(translate(DataError(code, text))) == "a value does not fit the column weight"


def test_a_value_that_is_missing_breaks_a_constraint_as_on_sqlite() -> None:
    error = OperationalError(1364, "Field 'title' doesn't have a default value")
    assert str(translate(error)) == "constraint violation"


@pytest.mark.parametrize(
    ("error", "is_reference"),
    [
        (OperationalError(1364, "Field 'title' doesn't have a default value"), False),
        (OperationalError(1452, "Cannot add or update a child row: a foreign key constraint fails"), True),
        (IntegrityError("", {}, Exception("NOT NULL constraint failed: civicrm_group.title")), False),
        (IntegrityError("", {}, Exception("CHECK constraint failed: civicrm_group")), False),
        (IntegrityError("", {}, Exception("FOREIGN KEY constraint failed")), True),
    ],
)
def test_only_a_row_that_is_gone_is_a_reference_to_none(error: Exception, is_reference: bool) -> None:
    """A sync that met any of these said that a group or contact had been deleted meanwhile."""
    found = translate(error)
    assert isinstance(found, ConstraintBroken)
    assert isinstance(found, NoSuchReference) is is_reference


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(request.param, tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("SELECT id FROM civicrm_gone", "table civicrm_gone"),
        ("UPDATE civicrm_gone SET id = 1", "table civicrm_gone"),
        ("SELECT c.gone FROM civicrm_contact c", "column c.gone"),
    ],
)
async def test_what_a_database_does_not_have_is_named(store: Store, statement: str, what: str) -> None:
    """It was `database error 1146`, in a run's log as well, with the name in the server's log alone."""
    with pytest.raises(StoreError, match=f"^the database has no {what}$"):
        await store.write(lambda conn: conn.exec_driver_sql(statement) and None)


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("INSERT INTO civicrm_group_contact (group_id, contact_id) VALUES (999, 999)", "civicrm_group_contact"),
        ("INSERT INTO civicrm_group_contact (group_id) VALUES (1)", "civicrm_group_contact"),
    ],
)
async def test_a_broken_constraint_has_its_table(store: Store, statement: str, table: str) -> None:
    with pytest.raises(ConstraintBroken, match="constraint violation") as broken:
        await store.write(lambda conn: conn.exec_driver_sql(statement) and None)
    assert broken.value.table == table
