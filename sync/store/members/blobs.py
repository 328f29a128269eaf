"""The blobs of the extension's tables, as maps in Python and as JSON for people.

``mailchimp_data``, ``civicrm_data`` and the status row hold PHP-serialized maps that other programs wrote too. What
cannot be read is an empty map and a line in the log: one spoilt row never stops a sync. The codec for the many
member rows of a page is ``member_data``; this one is slower and reads everything.
"""

from collections.abc import Mapping
from typing import Any

import orjson
import structlog

from civiapi.store.text.php import BadSerial, as_json, dump_php, load_php

INTERESTS = "interests"  # the extension of 2020 kept interest id → bool in a map of its own
INTEREST = "interest-"
MERGE = "merge-"
"""Before the tag of a merge field that a rule fills: what Mailchimp has, in the form of `canonical`."""

log = structlog.get_logger(__name__)


def load_data(data: bytes | None) -> dict[str, Any]:
    """The map in a blob, an old ``interests`` map made flat (``interest-ID``); empty for nothing or what is broken."""
    if not data:
        return {}
    try:
        loaded = load_php(data)
    except BadSerial:
        loaded = None
    if not isinstance(loaded, dict):
        log.warning("stored data cannot be read and counts as empty", length=len(data))
        return {}
    found = {str(key): value for key, value in loaded.items()}
    old = found.get(INTERESTS)
    if isinstance(old, dict):
        del found[INTERESTS]
        for key, value in old.items():
            found.setdefault(f"{INTEREST}{key}", bool(value))
    return found


def dump_data(data: Mapping[str, Any]) -> bytes:
    """A map as the tables keep it."""
    return dump_php(dict(data))


def data_as_json(data: bytes | None, *, pretty: bool = False) -> str:
    """A blob as JSON text for a caller; the empty text where there is no blob."""
    if not data:
        return ""
    options = orjson.OPT_INDENT_2 if pretty else 0
    return orjson.dumps(as_json(load_data(data)), option=options).decode()


def json_as_data(text: str) -> bytes:
    """JSON text of a map as a blob. Raises ValueError for anything else."""
    loaded = orjson.loads(text)
    if not isinstance(loaded, dict):
        raise ValueError("stored data must be a map")  # noqa: TRY004  one error for all that is wrong with the text
    return dump_data(loaded)
