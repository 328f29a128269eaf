"""Canonical names of entities and actions, from any spelling that CiviCRM accepts.

``contact``, ``group_contact`` and ``Group-Contact`` are entities; actions are found in any case.
"""

import re

MAX_NAME = 63
MAX_SPELLING = 1000  # characters of a name that are read
_OTHER = re.compile(r"[^A-Za-z0-9]+")


def entity_name(text: str) -> str:
    """``group_contact`` → ``GroupContact``, ``uf_match`` → ``UFMatch``; other case is kept (contract 3.1)."""
    parts = _normal(text).split("_")
    name = "".join(part[:1].upper() + part[1:] for part in parts)
    if name in ("IM", "ACL"):
        return name.capitalize()
    return "UF" + name[2:] if name.startswith("Uf") else name


def action_name(text: str) -> str:
    """``getSingle`` → ``getsingle``."""
    return _normal(text).lower()


def _normal(text: str) -> str:
    return _OTHER.sub("_", text[:MAX_SPELLING])[:MAX_NAME]
