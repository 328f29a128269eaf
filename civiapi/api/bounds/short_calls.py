"""Which calls may be answered on the event loop's own thread: those that are short whatever their caller sends.

SQLite interrupts a read between its steps only, and a step may match a pattern against a long text; Python's part of a
call is not interrupted at all. So this goes by what is declared and by the size of what was sent, never by how long it
took before: reads by the actions declared ``short``, with few, small parameters, no pattern, no long text to filter or
sort by, no joined filter, and few rows; and one record written by such an action. Everything else runs in a thread.
"""

from collections.abc import Mapping
from typing import Any

from civiapi.api.declaration.fields import TEXT
from civiapi.api.declaration.spec import Entity
from civiapi.api.parameters.options import is_empty
from civiapi.api.resolution import ResolvedCall

MAX_PARAMS = 40
MAX_VALUES = 60  # in all parameters together
MAX_LENGTH = 255  # characters of a name or a value
MAX_ROWS = 50
MAX_NAMES = 100  # of ``return``, which may be one text
MAX_CHAINED = 5
CONTROLS = frozenset({"return", "options", "sequential", "version", "check_permissions", "debug", "json"})
LIMITS = ("limit", "rowCount", "option_limit", "option.limit")
_NUMBERS = frozenset({int, bool, float})
_SINGLE = _NUMBERS | {str, type(None)}
SORTS = ("sort", "option_sort", "option.sort")
_BOUNDS = ("options", *LIMITS, *SORTS)


def is_short(call: ResolvedCall) -> bool:
    """Whether the call, with all that is chained in it, is short."""
    if call.writes or call.remote or not _is_short_alone(call):
        return False
    if not call.chains:
        return True
    children = [child for chain in call.chains for child in chain.calls]
    return (
        len(children) <= MAX_CHAINED
        and _names_one_row(call.call.params)
        and all(isinstance(child, ResolvedCall) and not child.chains and _is_short_alone(child) for child in children)
    )


def is_short_write(call: ResolvedCall) -> bool:
    """Whether the call writes, and is short: it chains nothing, and each of its parameters is one value."""
    if not call.writes or call.remote or call.chains or not _is_short_alone(call):
        return False
    return _SINGLE.issuperset(map(type, call.call.params.values()))


def _is_short_alone(call: ResolvedCall) -> bool:
    if not call.short:
        return False
    params = call.call.params
    if len(params) > MAX_PARAMS:
        return False
    chained = {chain.key for chain in call.chains} if call.chains else ()
    budget = _Budget()
    for name, value in params.items():
        if name in chained or (value.__class__ in _NUMBERS and len(name) <= MAX_LENGTH and "." not in name):
            continue
        if not budget.has_room_for(value):
            return False
        if name not in CONTROLS and not _is_plain_filter(call.entity, name, value):
            return False
    return params.keys().isdisjoint(_BOUNDS) or (_has_few_rows(params) and _sorts_plainly(call.entity, params))


class _Budget:
    """The values that the parameters of a short call may hold."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def has_room_for(self, value: Any, depth: int = 3) -> bool:
        """Count *value* and what is in it."""
        self._left -= 1
        if self._left < 0:
            return False
        if isinstance(value, str):
            self._left -= value.count(",")  # a list in one text
            return self._left >= 0 and len(value) <= MAX_NAMES * MAX_LENGTH
        if isinstance(value, Mapping | list):
            parts = [*value, *value.values()] if isinstance(value, Mapping) and len(value) <= MAX_VALUES else value
            return depth > 0 and len(value) <= MAX_VALUES and all(self.has_room_for(part, depth - 1) for part in parts)
        return True


def _is_plain_filter(entity: Entity, name: str, value: Any) -> bool:
    """Whether a parameter filters by no pattern, no long text and no joined column."""
    if len(name) > MAX_LENGTH:
        return False
    if "." in name:
        return name.startswith(("option.", "format.", "return."))
    field = entity.by_name.get(name)
    if field is not None and (field.type == TEXT or field.name in entity.matched_loosely):
        return False
    if value.__class__ is not str and isinstance(value, Mapping):
        return not any("LIKE" in str(operator).upper() for operator in value) and all(map(_is_plain, value.values()))
    return _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return "%" not in value and len(value) <= MAX_LENGTH
    return all(map(_is_plain, value)) if isinstance(value, list) else not isinstance(value, Mapping)


def _options(params: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """``options`` as a map; None where it is something that has to be read first."""
    options = params.get("options")
    return {} if not options else options if isinstance(options, Mapping) else None


def _has_few_rows(params: Mapping[str, Any]) -> bool:
    options = _options(params)
    if options is None:
        return False
    if "id" in params and _names_one_row(params):
        return True
    given = [source[name] for source in (params, options) for name in LIMITS if name in source]
    return all(isinstance(one, int | str) and str(one).isdigit() and 0 < int(one) <= MAX_ROWS for one in given)


def _names_one_row(params: Mapping[str, Any]) -> bool:
    given = params.get("id")
    return isinstance(given, int | str) and not is_empty(given)


def _sorts_plainly(entity: Entity, params: Mapping[str, Any]) -> bool:
    options = _options(params) or {}
    for given in [source[name] for source in (params, options) for name in SORTS if name in source]:
        if not isinstance(given, str) or "." in given:
            return False
        for part in given.split(","):
            field = entity.by_name.get(part.strip().partition(" ")[0])
            if field is not None and field.type == TEXT:
                return False
    return True
