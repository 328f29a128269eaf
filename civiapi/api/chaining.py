"""Running chained calls: ``api.Email.get`` runs once per row of the answer (contract section 6).

Every chained call, and every row that it answers, is counted in the budget of the request, and so is what they write.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from civiapi.api import envelope
from civiapi.api.call import Call
from civiapi.api.context import BudgetExceeded, CallBudget
from civiapi.api.declaration.spec import Entity, Request, Result
from civiapi.api.errors import ApiError, NoSuchAction, ReturnedError
from civiapi.api.resolution import Chain, ResolvedCall

_VALUE = re.compile(r"\$value\b(?:\.(.+))?", re.S)

RunCall = Callable[[ResolvedCall], Awaitable[Any]]


async def run(chains: Sequence[Chain], request: Request, result: Result, budget: CallBudget, run_call: RunCall) -> None:
    """Run every chained call for every row with *run_call*; each answer goes into the row under the key as sent.

    Raises ``ApiError`` if a call raises one; the error of a call that returns it (``ReturnedError``) is its answer.
    """
    rows = _rows(result.values)
    calls = [call for chain in chains for call in chain.calls]
    budget.check_writes(len(rows) * sum(isinstance(call, ResolvedCall) and call.writes_itself for call in calls))
    for row in rows:
        for chain in chains:
            answers = [await _counted(request, row, call, budget, run_call) for call in chain.calls]
            row[chain.key] = answers if chain.is_list else answers[0]


def _rows(values: Any) -> list[dict[str, Any]]:
    found = values if isinstance(values, list) else list(values.values()) if isinstance(values, dict) else []
    return [row for row in found if isinstance(row, dict) and "id" in row]


async def _counted(
    request: Request, row: dict[str, Any], call: ResolvedCall | Call, budget: CallBudget, run_call: RunCall
) -> Any:
    budget.spend(1)
    answer = await _answer(request, row, call, run_call)
    budget.spend_answer(answer)
    return answer


async def _answer(request: Request, row: dict[str, Any], call: ResolvedCall | Call, run_call: RunCall) -> Any:
    target = call if isinstance(call, Call) else call.call
    names = request.registry.names(target.entity, target.action)
    try:
        if isinstance(call, Call):
            raise NoSuchAction(*names)
        return await run_call(call.with_params(_params(request, call, row)))
    except BudgetExceeded:
        raise  # concerns the request, not this call
    except ReturnedError as problem:
        return envelope.error(problem, *names)
    except ApiError as problem:
        message = f"Error in call to {names[0]}_{names[1]} : {problem.message}"
        code = problem.code if problem.code or isinstance(problem, NoSuchAction) else "chained_api_failed"
        raise ApiError(message, code, **problem.extra) from problem


def _params(request: Request, call: ResolvedCall, row: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a chained call for one row of its parent; those chained in turn are left for its own rows."""
    inherited = {"debug": request.sent["debug"]} if "debug" in request.sent else {}
    params = {"version": 3, "sequential": 1, **inherited}
    params |= _from_parent(request.entity, call.entity, row, call.call.params)
    for key, value in call.call.params.items():
        params[key] = value if key.startswith(("api.", "api_")) else _filled(value, row)
    return params


def _from_parent(parent: Entity, child: Entity, row: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The ids that a chained call is given (contract 6.2), beside the parameters of its *own*."""
    given: dict[str, Any] = {}
    if child.name != "Contact":
        given = {"entity_id": row["id"], "entity_table": f"civicrm_{parent.snake}"}
        sides = {child.contact_field, child.other_contact_field} if child.other_contact_field else set()
        if parent.name != "Contact" or sides.isdisjoint(own):  # a relationship of which a side is named
            given[f"{parent.snake}_id"] = row["id"]
    if parent.name != "Contact" and (child_id := row.get(f"{child.snake}_id")):
        given["id"] = child_id
    if child is parent:
        given["id"] = row["id"]
    return given


def _filled(value: Any, row: Mapping[str, Any]) -> Any:
    """*value* with ``$value…`` replaced; by ``None`` where it names nothing, in an operator map by ``""``."""
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
