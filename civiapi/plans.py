"""A plan from the command line: what a sync would do, as a table of numbers, and every person as CSV."""

import csv
from collections.abc import AsyncIterator
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from civiapi.app import App, open_app
from civiapi.call import Call
from civiapi.settings import Settings

PAGE = 1000
COLUMNS = ("contact_id", "name", "email", "kind", "mailchimp_status", "civicrm_status", "reason")


class PlanFailed(Exception):
    """There is no plan; the text says why."""


async def write_plans(
    settings: Settings, group: int | None, asked: dict[str, Any], console: Console, out: TextIO | None
) -> int:
    """Plan the sync of one group's audience, or of each, say what it comes to, and write the people to *out* as CSV.

    *asked*: ``kind`` and ``since``, as ``Mailchimpsync.plan`` takes them. Returns how many people were listed. Raises
    ``PlanFailed``.
    """
    writer = csv.writer(out) if out is not None else None
    if writer is not None:
        writer.writerow(("group_id", *COLUMNS))
    listed = 0
    async with open_app(settings) as app:
        status = (await _ask(app, "getprogress", {} if group is None else {"group_id": group}))["values"]
        if not status:
            raise PlanFailed("No group is linked with an audience yet.")
        for link in status.values():
            with console.status(f"Working out what a sync of group {link['group_id']} would do …"):
                first = (await _ask(app, "plan", {"group_id": link["group_id"], **asked}))["values"]
            _show(first, console)
            async for one in _people(app, first, asked):
                listed += 1
                if writer is not None:
                    writer.writerow((link["group_id"], *(_safe(one[name]) for name in COLUMNS)))
    return listed


def _show(plan: dict[str, Any], console: Console) -> None:
    table = Table("Kind", "People", "", title=f"Group {plan['group_id']}, audience {plan['list_id']}")
    for one in plan["summary"]:
        table.add_row(one["kind"], str(one["count"]), one["sentence"].partition(": ")[2])
    console.print(table if plan["summary"] else f"Group {plan['group_id']}: nobody is to be looked at.")


async def _people(app: App, plan: dict[str, Any], asked: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    known = {"group_id": plan["group_id"], "plan_id": plan["plan_id"], **asked}
    for offset in range(0, plan["count"], PAGE):
        part = (await _ask(app, "plan", {**known, "options": {"limit": PAGE, "offset": offset}}))["values"]
        for one in part["people"]:
            yield one


def _safe(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


async def _ask(app: App, action: str, params: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = await app.api.respond(Call("Mailchimpsync", action, {"version": 3, **params}))
    if answer.get("is_error"):
        raise PlanFailed(str(answer.get("error_message")))
    return answer
