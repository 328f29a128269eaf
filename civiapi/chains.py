"""Chained calls: ``api.Email.get`` in the parameters runs once per row of the answer (contract section 6).

A chain in a chain multiplies: three lines of parameters can ask for more rows than fit in memory. So a request has a
purse (``Purse``) that every chained call and every row it answers is paid from, and chains lie only so deep.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from civiapi import envelope
from civiapi.errors import ApiError, NotFound, ReturnedError
from civiapi.request import Request, is_one
from civiapi.spec import Entity, Result

if TYPE_CHECKING:
    from civiapi.dispatch import Context

MOST_DEPTH = 20
"""Chained calls in each other."""

UNCHAINED_ACTIONS = frozenset({"getfields", "getfield", "getoptions", "getcount", "getvalue", "validate"})
_KEY = re.compile(r"api([._])(.+)", re.S)
_VALUE = re.compile(r"\$value\b(?:\.(.+))?", re.S)


@dataclass(slots=True)
class Purse:
    """How many chained calls, and rows of their answers, a request may still have."""

    most: int
    spent: int = 0

    def pay(self, count: int) -> None:
        """Raises ``ApiError`` once more was spent than there is."""
        self.spent += count
        if self.spent > self.most:
            raise TooMuch(self.most)


class TooMuch(ApiError):
    """The chained calls of a request come to more than it may ask for."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"The chained calls of a request and the rows they answer may be {most} together ([server] max_chained). "
            "Ask for fewer rows at a time with options.limit and options.offset.",
            "too_much",
        )


class TooDeep(ApiError):
    """Chained calls lie too deep in each other."""

    def __init__(self) -> None:
        super().__init__(f"Chained calls lie at most {MOST_DEPTH} deep in each other", "too_much")


def links(entity: Entity, action: str, params: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """The chained calls among *params*: key, entity and action as spelt, and what was given."""
    if action in UNCHAINED_ACTIONS:
        return
    for key, given in params.items():
        if key[:3] != "api" or not (found := _KEY.fullmatch(key)) or key in entity.by_name:
            continue
        if isinstance(given, dict | list) or is_one(given):
            parts = found[2].split(found[1])
            yield key, parts[0], parts[1] if len(parts) > 1 and parts[1] else action, given


def children(entity: Entity, action: str, params: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """What may be called below this call, for whoever must know beforehand."""
    out: list[tuple[str, str, Mapping[str, Any]]] = []
    for _, child, child_action, given in links(entity, action, params):
        out += [(child, child_action, one) for one in _each(given)]
    return out


def _each(given: Any) -> list[Mapping[str, Any]]:
    """The parameter maps of one key; a list of maps means one call each."""
    if isinstance(given, list) and given:
        return [one for one in given if isinstance(one, Mapping)]
    return [given if isinstance(given, Mapping) else {}]


async def run(request: Request, result: Result, ctx: "Context") -> None:
    """Run every chained call for every row, and put each answer into its row under the key as sent.

    Raises ``ApiError`` if a child throws; a child that returns its error (``ReturnedError``) stands in the row.
    """
    todo = list(links(request.entity, request.action.name, request.sent))
    if not todo:
        return
    for row in _rows(result.values):
        for key, child, action, given in todo:
            several = isinstance(given, list) and bool(given)
            answers = [await _paid(request, row, child, action, own, ctx) for own in _each(given)]
            row[key] = answers if several else answers[0]


def _rows(values: Any) -> list[dict[str, Any]]:
    found = values if isinstance(values, list) else list(values.values()) if isinstance(values, dict) else []
    return [row for row in found if isinstance(row, dict) and "id" in row]


async def _paid(
    request: Request, row: dict[str, Any], child: str, action: str, own: Mapping[str, Any], ctx: "Context"
) -> Any:
    ctx.purse.pay(1)
    answer = await _one(request, row, child, action, own, ctx)
    values = answer.get("values") if isinstance(answer, dict) else None
    ctx.purse.pay(len(values) if isinstance(values, dict | list) else 0)
    return answer


async def _one(
    request: Request, row: dict[str, Any], child: str, action: str, own: Mapping[str, Any], ctx: "Context"
) -> Any:
    entity = request.registry.find_entity(child)
    inherited = {"debug": request.sent["debug"]} if "debug" in request.sent else {}
    sent = {"version": 3, "sequential": 1, **inherited, **_from_parent(request.entity, entity, row)}
    sent |= {key: value if key.startswith(("api.", "api_")) else _filled(value, row) for key, value in own.items()}
    names = request.registry.names(child, action)
    try:
        return await ctx.call(child, action, sent)
    except TooMuch:
        raise  # it is about the request, not about this call
    except ReturnedError as problem:
        return envelope.error(problem, *names)
    except ApiError as problem:
        message = f"Error in call to {names[0]}_{names[1]} : {problem.message}"
        code = problem.code if problem.code or isinstance(problem, NotFound) else "chained_api_failed"
        raise ApiError(message, code, **problem.extra) from problem


def _from_parent(parent: Entity, child: Entity | None, row: Mapping[str, Any]) -> dict[str, Any]:
    """The ids a chained call starts from (contract 6.2)."""
    if child is None:
        return {}
    given: dict[str, Any] = {}
    if child.name != "Contact":
        given = {"entity_id": row["id"], "entity_table": f"civicrm_{parent.snake}", f"{parent.snake}_id": row["id"]}
    if parent.name != "Contact" and (own := row.get(f"{child.snake}_id")):
        given["id"] = own
    if child is parent:
        given["id"] = row["id"]
    return given


def _filled(value: Any, row: Mapping[str, Any]) -> Any:
    """*value* with ``$value…`` replaced: by nothing (``None``) if unresolved, by ``""`` in an operator map."""
    if isinstance(value, str):
        found = _VALUE.fullmatch(value)
        return value if found is None else _walk(row, found[1] or "id")
    if isinstance(value, dict) and value:
        operator, operand = next(iter(value.items()))
        if isinstance(operand, str) and operand.startswith("$value"):
            filled = _filled(operand, row)
            return {**value, operator: "" if filled is None else filled}
    return value


def _walk(row: Any, path: str) -> Any:
    """Follow a dotted path; keys of a row may hold dots themselves (``api.Email.get``)."""
    while path:
        if isinstance(row, list):
            step, _, path = path.partition(".")
            if not step.isdigit() or int(step) >= len(row):
                return None
            row = row[int(step)]
            continue
        if not isinstance(row, Mapping):
            return None
        keys = [str(key) for key in row]
        step = max((key for key in keys if path == key or path.startswith(f"{key}.")), key=len, default="")
        if not step:
            return None
        row = row[step] if step in row else row[int(step)]
        path = path[len(step) + 1 :]
    return row if not isinstance(row, dict | list) else None
