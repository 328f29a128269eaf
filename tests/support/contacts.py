"""Builders of contacts."""

from typing import Any

from civiapi.api.call import Caller
from tests.conftest import Ask


async def a_contact(call: Ask, first_name: str = "Ada", last_name: str = "Lovelace", **more: Any) -> int:
    """An Individual, made through the API; gives the id."""
    names = {"first_name": first_name, "last_name": last_name}
    made = await call("Contact", "create", {"contact_type": "Individual", **names, **more})
    assert made["is_error"] == 0, made
    return int(made["id"])


async def an_email(call: Ask, contact_id: int, email: str, **more: Any) -> int:
    """An address of a contact; gives the id."""
    made = await call("Email", "create", {"contact_id": contact_id, "email": email, **more})
    assert made["is_error"] == 0, made
    return int(made["id"])


def a_caller(*permissions: str, contact_id: int | None = None) -> Caller:
    """Somebody with these permissions."""
    return Caller(contact_id, frozenset(permissions), "somebody")
