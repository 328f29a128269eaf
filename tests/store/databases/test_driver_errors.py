"""What a database refuses us for, in words; the names that people gave to users and tables decide nothing."""

import pytest
from asyncmy.errors import OperationalError

from civiapi.store.databases.driver_errors import translate
from civiapi.store.errors import StoreUnusable

REFUSED = "the user name or password is refused, or the server asks for TLS"


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (1045, "Access denied for user 'read_only'@'host' (using password: YES)", REFUSED),
        (1045, "Access denied for user 'malformed'@'is locked' (using password: NO)", REFUSED),
        (1044, "Access denied for user 'crm'@'%' to database 'crm'", "has no rights to it"),
        (1142, "INSERT command denied to user 'crm'@'%' for table `c`.`t`", "lacks the right INSERT"),
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
