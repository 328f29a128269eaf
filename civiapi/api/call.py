"""One APIv3 call and its caller. Endpoints make calls, ``dispatch`` answers them."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

from civiapi.runtime.values import call_value

ALL_PERMISSIONS = "*"


def holds(permissions: frozenset[str], wanted: str) -> bool:
    """Whether a permission is among those held."""
    return ALL_PERMISSIONS in permissions or wanted in permissions


@call_value
class Caller:
    """A contact with permissions, and how it was authenticated.

    ``permissions``: CiviCRM's permission names, or ``*`` for all. ``flow`` and ``cred``: authx's names (``xheader``,
    ``legacyrest``…; ``api_key``, ``jwt``). A caller without a contact is anonymous.
    """

    contact_id: int | None
    permissions: frozenset[str]
    name: str = ""
    flow: str = ""
    cred: str = ""
    withholds_secrets: bool = False  # secret fields do not exist, whatever the permissions: what is answered is kept
    is_schedule: bool = False  # a scheduled job calls: nobody asked for it at this moment

    def may(self, permission: str) -> bool:
        """Whether the caller holds this permission."""
        return holds(self.permissions, permission)


SYSTEM = Caller(contact_id=None, permissions=frozenset({ALL_PERMISSIONS}), name="system")


@call_value
class Call:
    """An entity, an action and parameters as the caller sent them, with names not yet normalised."""

    entity: str
    action: str
    params: Mapping[str, Any] = field(default_factory=dict)
    caller: Caller = SYSTEM
    read_only: bool = False  # the request may not change data, whatever is chained in it


class Responder(Protocol):
    """What answers calls: ``dispatch.Api``, as endpoints see it."""

    async def respond(self, call: Call) -> Any:
        """The answer to a call, good or bad; never raises."""
