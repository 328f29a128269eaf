"""What CiviCRM works out of a contact's parts: its names, its greetings, and what every new contact has.

The one place that does, for the API, the sync's contacts and renames alike. Greetings are templates in option lists
(``email_greeting``, ``postal_greeting``, ``addressee``); the texts that come of them are stored with the contact, and
CiviMail prints them. A template that holds more than tokens of the contact's own columns is left to CiviCRM: its text
stays empty.
"""

import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, select

from civiapi.store.civicrm.settings import read_setting
from civiapi.store.schema.tables import contact, option_group, option_value
from civiapi.store.text.encoded_text import cut

INDIVIDUAL, HOUSEHOLD, ORGANIZATION = "Individual", "Household", "Organization"
NAMED_BY = {HOUSEHOLD: "household_name", ORGANIZATION: "organization_name"}
GREETINGS = ("email_greeting", "postal_greeting", "addressee")
_GREETING_COLUMNS = tuple((one, f"{one}_id", f"{one}_custom", f"{one}_display") for one in GREETINGS)
NAME_LIMIT = 128  # stored characters of the display name and the sort name
GREETING_LIMIT = 255
LANGUAGE = "en_US"

_PREFIX, _SUFFIX, _STYLE = "individual_prefix", "individual_suffix", "communication_style"
_FILTERS = {INDIVIDUAL: 1, HOUSEHOLD: 2, ORGANIZATION: 3}  # ``filter`` of a greeting; 0: for all
_CUSTOMIZED = "customized"
_TOKEN = re.compile(r"\{contact\.(\w+)(?::label)?\}|(\{ \})")
_LABELS = {"prefix_id": _PREFIX, "suffix_id": _SUFFIX, _PREFIX: _PREFIX, _SUFFIX: _SUFFIX}
_COLUMNS = {_PREFIX: "prefix_id", _SUFFIX: "suffix_id"}


@dataclass(frozen=True, slots=True)
class Conventions:
    """How this site names and greets: labels by list and value, the default greetings by list and contact type."""

    labels: Mapping[str, Mapping[str, str]]
    defaults: Mapping[tuple[str, str], str]
    style: int | None
    language: str


CACHE_SECONDS = 30.0  # after which a change in the site's option lists is seen; they change rarely
_cache: "WeakKeyDictionary[Engine, tuple[float, Conventions]]" = WeakKeyDictionary()


def conventions(conn: Connection) -> Conventions:
    """The conventions of this site, read again every half minute."""
    until, found = _cache.get(conn.engine, (0.0, None))
    if found is None or until < time.monotonic():
        found = _read(conn)
        _cache[conn.engine] = time.monotonic() + CACHE_SECONDS, found
    return found


def _read(conn: Connection) -> Conventions:
    columns = (option_group.c.name, option_value.c.value, option_value.c.label, option_value.c.filter)
    rows = conn.execute(
        select(*columns, option_value.c.is_default)
        .join(option_group, option_group.c.id == option_value.c.option_group_id)
        .where(option_group.c.name.in_((*GREETINGS, _PREFIX, _SUFFIX, _STYLE)))
        .order_by(option_value.c.is_active, option_value.c.weight.desc())  # of several defaults the first counts
    )
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    defaults: dict[tuple[str, str], str] = {}
    style = None
    for name, value, label, filtered, is_default in rows:
        labels[name][value] = label
        if is_default and name == _STYLE and value.isdecimal():
            style = int(value)
        elif is_default:
            kinds = (kind for kind, number in _FILTERS.items() if (filtered or 0) in (0, number))
            defaults |= {(name, kind): value for kind in kinds}
    found = read_setting(conn, "lcMessages")
    return Conventions(labels, defaults, style, found if isinstance(found, str) and found else LANGUAGE)


def new_contact_columns(site: Conventions, row: Mapping[str, Any], address: str | None) -> dict[str, Any]:
    """The columns of a new contact that it was not given: names, greetings, style and language."""
    base = {"communication_style_id": site.style, "preferred_language": site.language}
    kept = {name: row[name] for name in base if row.get(name)}
    return {**base, **kept, **name_columns(site, row, address), **greeting_columns(site, row)}


def name_columns(site: Conventions, row: Mapping[str, Any], address: str | None) -> dict[str, str | None]:
    """Display name and sort name of a contact; *address* names an Individual without a name."""
    kind = row.get("contact_type")
    if kind in NAMED_BY:
        name = row.get(NAMED_BY[kind])
        return dict.fromkeys(("display_name", "sort_name"), cut(name, NAME_LIMIT)) if name else {}
    given, family = (row.get("first_name") or "").strip(), (row.get("last_name") or "").strip()
    prefix, suffix = _label(site, _PREFIX, row), _label(site, _SUFFIX, row)
    display = cut(" ".join(part for part in (prefix, given, family, suffix) if part), NAME_LIMIT)
    turned = ", ".join(part for part in (family, given) if part)
    sort = cut(f"{turned} {suffix}" if turned and suffix else turned, NAME_LIMIT)
    fallback = cut(address or row.get("display_name") or "", NAME_LIMIT) or None
    return {"display_name": display or fallback, "sort_name": sort or display or fallback}


def greeting_columns(site: Conventions, row: Mapping[str, Any]) -> dict[str, Any]:
    """The greetings of a contact: the chosen template or the default, and the text that comes of it."""
    found: dict[str, Any] = {}
    texts: dict[str, str | None] = {}  # two of the defaults are the same
    kind = row.get("contact_type") or ""
    for greeting, chosen, custom, display in _GREETING_COLUMNS:
        value = str(row.get(chosen) or site.defaults.get((greeting, kind)) or "")
        template = site.labels.get(greeting, {}).get(value)
        if template is not None and template.strip().lower() == _CUSTOMIZED:
            text = row.get(custom)
        else:
            key = template or ""
            if key not in texts:
                texts[key] = _render(site, key, row) if key else None
            text = texts[key]
        found[chosen] = int(value) if value.isdecimal() else None
        found[display] = cut(text, GREETING_LIMIT) if text else None
    return found


def _label(site: Conventions, options: str, row: Mapping[str, Any]) -> str:
    value = row.get(_COLUMNS[options])
    return site.labels.get(options, {}).get(str(value), "") if value else ""


def _render(site: Conventions, template: str, row: Mapping[str, Any]) -> str | None:
    """The text of a template; None where it holds something else than tokens of a contact's columns."""
    pieces = _pieces(template)
    if pieces is None:
        return None
    texts = [
        text if token is None else _label(site, _LABELS[token], row) if token in _LABELS else str(row.get(token) or "")
        for text, token in pieces
    ]
    return " ".join("".join(texts).split())  # neither an empty token nor ``{ }`` leaves two spaces


@lru_cache(maxsize=256)
def _pieces(template: str) -> tuple[tuple[str, str | None], ...] | None:
    """A template in pieces: literal texts, and tokens by their column."""
    pieces: list[tuple[str, str | None]] = []
    at = 0
    for found in _TOKEN.finditer(template):
        pieces.append((template[at : found.start()], None))
        pieces.append((" ", None) if found[2] else ("", found[1]))
        at = found.end()
    pieces.append((template[at:], None))
    known = {*contact.c.keys(), *_LABELS, None}
    if any("{" in text or token not in known for text, token in pieces):
        return None
    return tuple(one for one in pieces if one != ("", None))
