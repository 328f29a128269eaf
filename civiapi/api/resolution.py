"""From the names in a call to declarations, for the call and every call chained in its parameters (contract section 6).

Nested chains multiply: a few lines of parameters can ask for more rows than fit in memory. So the number of chained
calls and their depth are limited, before any of them runs.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Union

from civiapi.api.call import Call
from civiapi.api.context import CallBudget
from civiapi.api.declaration.spec import Action, Entity, Registry
from civiapi.api.errors import ApiError, NoSuchAction, WritesInReadOnlyCall
from civiapi.api.parameters.options import is_one
from civiapi.api.permissions import view
from civiapi.runtime.values import call_value

MAX_DEPTH = 20
"""Levels of nested chained calls."""

UNCHAINED_ACTIONS = frozenset({"getfields", "getfield", "getoptions", "getcount", "getvalue", "validate"})
_KEY = re.compile(r"api([._])(.+)", re.S)
_NO_CHAINS = frozenset({"api_key"})  # a credential, or a field that does not exist for the caller


class TooDeep(ApiError):
    """Chained calls are nested too deep."""

    def __init__(self) -> None:
        super().__init__(f"Chained calls can be nested at most {MAX_DEPTH} deep", "too_much")


@dataclass(frozen=True, slots=True)
class Chain:
    """The calls under one key of the parameters; ``Call``: one whose entity or action does not exist.

    *is_list*: several calls were given, so that the answer is a list.
    """

    key: str
    calls: tuple[Union["ResolvedCall", Call], ...]
    is_list: bool


@call_value
class ResolvedCall:
    """A call with its declarations, from its caller's view of the registry.

    ``writes``, ``remote`` (needs more than the store), ``long_running`` and ``single`` include its chains;
    ``writes_itself`` and ``short`` do not.
    """

    registry: Registry
    call: Call
    entity: Entity
    action: Action
    chains: tuple[Chain, ...]
    writes: bool
    writes_itself: bool
    remote: bool
    long_running: bool
    short: bool
    single: bool

    def with_params(self, params: Mapping[str, Any]) -> "ResolvedCall":
        """The same call with other parameters, in which the same calls are chained."""
        return replace(self, call=replace(self.call, params=params))


def resolve(registry: Registry, call: Call, max_chained: int) -> ResolvedCall:
    """Look up a call and its chains, as its caller sees the declarations.

    Raises ``NoSuchAction``, ``TooDeep``, ``BudgetExceeded``, and ``WritesInReadOnlyCall`` for a read-only call.
    """
    resolved = _resolve(view(registry, call.caller), call, CallBudget(max_chained), 0)
    if call.read_only:
        _check_reads_only(resolved)
    return resolved


def is_read_action(name: str) -> bool:
    """Whether an action of this name only reads, by CiviCRM's rule; a test holds it against the declarations."""
    name = name.lower()
    return name.startswith("get") or name == "check"


def _check_reads_only(call: ResolvedCall) -> None:
    if not is_read_action(call.action.name):
        raise WritesInReadOnlyCall
    for chain in call.chains:
        for one in chain.calls:
            if isinstance(one, ResolvedCall):
                _check_reads_only(one)


def _resolve(registry: Registry, call: Call, budget: CallBudget, depth: int) -> ResolvedCall:
    if depth > MAX_DEPTH:
        raise TooDeep
    entity, action = registry.resolve(call.entity, call.action)
    traits = registry.traits(entity, action)
    writes, remote = traits.writes, traits.remote
    long_running = action.long_running
    chains = []
    for key, calls, is_list in _chained(entity, action, call):
        budget.spend(len(calls))
        resolved = tuple(_resolve_chained(registry, one, budget, depth + 1) for one in calls)
        known = [one for one in resolved if isinstance(one, ResolvedCall)]
        writes = writes or any(one.writes for one in known)
        remote = remote or any(one.remote for one in known)
        long_running = long_running or any(one.long_running for one in known)
        chains.append(Chain(key, resolved, is_list))
    single = traits.single and not chains
    return ResolvedCall(
        registry, call, entity, action, tuple(chains), writes, traits.writes, remote, long_running, traits.short, single
    )


def _resolve_chained(registry: Registry, call: Call, budget: CallBudget, depth: int) -> ResolvedCall | Call:
    try:
        return _resolve(registry, call, budget, depth)
    except NoSuchAction:
        return call


def is_chained(entity: Entity, action: Action, key: str) -> bool:
    """Whether a parameter of this name is a chained call: it begins with ``api.`` or ``api_`` and is no field."""
    return (
        key[:3] == "api"
        and _KEY.fullmatch(key) is not None
        and key not in _NO_CHAINS
        and key not in entity.by_name
        and not any(key == one.name for one in action.params or ())
    )


def _chained(entity: Entity, action: Action, call: Call) -> Iterator[tuple[str, list[Call], bool]]:
    """The parameters that are chained calls (``api.Email.get``; without an action, the parent's), as in ``Chain``."""
    if action.name in UNCHAINED_ACTIONS:
        return
    for key, given in call.params.items():
        if not is_chained(entity, action, key) or not (found := _KEY.fullmatch(key)):
            continue
        if isinstance(given, dict | list) or is_one(given):
            parts = found[2].split(found[1])
            name = parts[1] if len(parts) > 1 and parts[1] else action.name
            is_list = isinstance(given, list) and bool(given)
            maps = [one for one in (given if is_list else [given]) if isinstance(one, Mapping) or not is_list]
            yield (
                key,
                [Call(parts[0], name, one if isinstance(one, Mapping) else {}, call.caller) for one in maps],
                is_list,
            )
