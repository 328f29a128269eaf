"""One APIv3 call, who makes it, and what dispatch needs to answer it.

Adapters make calls; ``dispatch`` answers them; chained and batched calls are calls again. Nothing here reads HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALL_PERMISSIONS = "*"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a contact with permissions, and how they showed who they are.

    ``permissions`` holds CiviCRM's permission names, or ``*`` for all. ``flow`` and ``cred`` are authx's words
    (``xheader``, ``legacyrest``…; ``api_key``, ``jwt``). A caller without a contact is anonymous.
    """

    contact_id: int | None
    permissions: frozenset[str]
    name: str = ""
    flow: str = ""
    cred: str = ""

    def may(self, permission: str) -> bool:
        """Whether the caller holds this permission."""
        return ALL_PERMISSIONS in self.permissions or permission in self.permissions


SYSTEM = Caller(contact_id=None, permissions=frozenset({ALL_PERMISSIONS}), name="system")


@dataclass(frozen=True, slots=True)
class Call:
    """An entity, an action and its parameters as the caller wrote them: names not yet normalised."""

    entity: str
    action: str
    params: Mapping[str, Any] = field(default_factory=dict)
    caller: Caller = SYSTEM
