"""``civiapi plan``: what a sync would do, as a table of numbers, and every person as CSV."""

import csv
from collections.abc import AsyncIterator
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from civiapi.api.call import Call
from civiapi.app import App, open_app
from civiapi.http.csv_rows import PLAN_COLUMNS, csv_row
from civiapi.settings import Settings

PAGE = 1000


class PlanFailed(Exception):
    """No plan could be calculated; the text says why."""


async def write_plans(
    settings: Settings, group: int | None, filters: dict[str, Any], console: Console, out: TextIO | None
) -> int:
    """Plan the sync of one group, or of all, print the summary, and write the people to *out* as CSV.

    *filters*: ``kind`` and ``since`` of ``Mailchimpsync.plan``. Returns the number of people listed. Raises
    ``PlanFailed``.
    """
    writer = csv.writer(out) if out is not None else None
    if writer is not None:
        writer.writerow(("group_id", *PLAN_COLUMNS))
    listed = 0
    async with open_app(settings) as app:
        status = (await _call(app, "getprogress", {} if group is None else {"group_id": group}))["values"]
        if not status:
            raise PlanFailed("No group is linked with an audience.")
        for link in status.values():
            with console.status(f"Calculating the plan of group {link['group_id']} …"):
                first = (await _call(app, "plan", {"group_id": link["group_id"], **filters}))["values"]
            _show(first, console)
            async for one in _people(app, first, filters):
                listed += 1
                if writer is not None:
                    writer.writerow((link["group_id"], *csv_row(one, PLAN_COLUMNS)))
    return listed


def _show(plan: dict[str, Any], console: Console) -> None:
    table = Table("Kind", "People", "", title=f"Group {plan['group_id']}, audience {plan['list_id']}")
    for one in plan["summary"]:
        table.add_row(one["kind"], str(one["count"]), one["sentence"].partition(": ")[2])
    console.print(table if plan["summary"] else f"Group {plan['group_id']}: no changes.")


async def _people(app: App, plan: dict[str, Any], filters: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    known = {"group_id": plan["group_id"], "plan_id": plan["plan_id"], **filters}
    for offset in range(0, plan["count"], PAGE):
        part = (await _call(app, "plan", {**known, "options": {"limit": PAGE, "offset": offset}}))["values"]
        for one in part["people"]:
            yield one


async def _call(app: App, action: str, params: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = await app.api.respond(Call("Mailchimpsync", action, {"version": 3, **params}))
    if answer.get("is_error"):
        raise PlanFailed(str(answer.get("error_message")))
    return answer
