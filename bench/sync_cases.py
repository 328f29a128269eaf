"""What is measured of the sync, one case a process: ``python -m bench.sync_cases CASE JSON`` prints one line of JSON.

Each case opens the program as ``serve`` does, over a settings file, and asks it through the API; ``bench.sync`` makes
the files and runs the emulator in a process of its own.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
from sqlalchemy import Connection, func, select, text

from bench.measure import Measured, measuring, peak_mb
from civiapi.api.call import Call
from civiapi.app import App, open_app
from civiapi.runtime.loop_priority import priority_loop
from civiapi.server.lifecycle import serving
from civiapi.server.process import tune_process
from civiapi.settings import load_settings
from civiapi.store.schema.tables import contact, email, group_contact
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.transport import CallRecord
from sync.store.tables import cache

REPEATS = 40
Found = dict[str, Any]


class Site:
    """The program opened over one settings file, and how long Mailchimp kept it waiting."""

    def __init__(self, app: App, given: dict[str, Any]) -> None:
        self.app = app
        self.given = given
        self.remote = 0.0

    def note(self, record: CallRecord) -> None:
        """Count the seconds of a call to Mailchimp (calls at the same time count each)."""
        self.remote += record.seconds

    async def ask(self, entity: str, action: str, **params: Any) -> Any:
        """The values of one API call; ends the benchmark when it fails."""
        answer = await self.app.api.respond(Call(entity, action, params))
        if not isinstance(answer, dict):
            return answer  # getcount and getvalue answer bare
        if answer["is_error"]:
            raise SystemExit(f"{entity}.{action}: {answer['error_message']}")
        return answer.get("values", answer.get("result"))

    async def sync(self, **params: Any) -> Measured:
        """One run to its end."""
        self.remote = 0.0
        with measuring() as took:
            await self.ask("Mailchimpsync", "fetchandreconcile", group_id=1, max_time=0, **params)
        return took


@asynccontextmanager
async def opened(given: dict[str, Any]) -> AsyncIterator[Site]:
    """The program over the settings file of this case."""
    async with open_app(load_settings(Path(given["settings"]))) as app:
        tune_process()
        site = Site(app, given)
        client: MailchimpClient = app.clients.client_for(given["key"])
        client._transport._on_call = site.note
        yield site


async def first_sync(given: dict[str, Any]) -> Found:
    """The first sync of an audience, of any contacts."""
    async with opened(given) as site:
        took = await site.sync(since="ever")
        return shown(took, await site.app.store.read(count_rows), remote=site.remote)


async def nothing_changed(given: dict[str, Any]) -> Found:
    """A run a while after the last one, in which nobody had said anything; the middle of five."""
    async with opened(given) as site:
        await site.sync()  # what the first sync made is looked at again once
        runs = []
        for _ in range(5):
            took = await site.sync()
            runs.append((took.wall - site.remote, took))
        own, took = sorted(runs, key=lambda one: one[0])[2]
        return shown(took, 1, own_ms=own * 1000)


async def incremental(given: dict[str, Any]) -> Found:
    """A hundred people changed at Mailchimp: fifty left, fifty have another name; the best of four such runs."""
    async with opened(given) as site, httpx.AsyncClient(base_url=given["control"]) as control:
        await site.sync()
        start = await site.app.store.read(some_subscribed, 400)
        rounds = []
        for part in (start[begin : begin + 100] for begin in range(0, 400, 100)):
            for number, address in enumerate(part):
                name = {"merge_fields": {"FNAME": f"New {number}"}}
                does: dict[str, Any] = {"action": "edit_profile", **name} if number % 2 else {"action": "unsubscribe"}
                await act(control, {"email": address, **does})
            took = await site.sync()
            rounds.append((took.wall - site.remote, took))
        own, took = min(rounds, key=lambda one: one[0])
        return shown(took, 100, own_ms=own * 1000)


async def act(control: httpx.AsyncClient, body: dict[str, Any]) -> None:
    """Let a person do something at the emulator."""
    answer = await control.post("/_emulator/actions/person", json=body, timeout=60)
    if answer.status_code != 200:
        raise SystemExit(f"the emulator refused {body}: {answer.text}")


async def full_again(given: dict[str, Any]) -> Found:
    """Everything fetched once more, nothing changed."""
    async with opened(given) as site:
        took = await site.sync(since="ever")
        return shown(took, await site.app.store.read(count_rows))


async def push(given: dict[str, Any]) -> Found:
    """Everybody in the group to an empty audience, and all results back."""
    async with opened(given) as site:
        with measuring() as took:
            await site.sync()
            if not await site.app.sync.wait_until_idle(seconds=7200):
                raise SystemExit("the push did not end within two hours")
        done = await site.app.store.read(lambda conn: count_where(conn, cache.c.sync_status == "ok"))
        return shown(took, done)


async def first_data(given: dict[str, Any]) -> Found:
    """The first data of everybody: a merge field that a rule fills, and names; with all results back."""
    async with opened(given) as site:
        await site.sync()  # what the first sync made is looked at again once
        await site.ask("Mailchimpsync", "setmergefields", group_id=1, rules='{"PHONE":"contact:id"}')
        with measuring() as took:
            await site.sync(with_data=True, confirm=True)
            if not await site.app.sync.wait_until_idle(seconds=7200):
                raise SystemExit("the data did not arrive within two hours")
        sent = await site.app.store.read(lambda conn: count_where(conn, cache.c.civicrm_data.is_not(None)))
        return shown(took, sent)


async def no_new_data(given: dict[str, Any]) -> Found:
    """A run with data in which nobody's had changed; the middle of five."""
    async with opened(given) as site:
        await site.sync(with_data=True)
        runs = []
        for _ in range(5):
            took = await site.sync(with_data=True)
            runs.append((took.wall - site.remote, took))
        own, took = sorted(runs, key=lambda one: one[0])[2]
        return shown(took, 1, own_ms=own * 1000)


async def undo(given: dict[str, Any]) -> Found:
    """A first sync that made everybody a contact is taken back; before it, the first page of the undo's plan."""
    async with opened(given) as site:
        await site.sync(since="ever")
        [run] = await site.ask("Mailchimpsync", "getruns", group_id=1, options={"limit": 1})
        with measuring() as planned:
            await site.ask("Mailchimpsync", "planundo", run_id=run["id"], options={"limit": 25})
        with measuring() as took:
            done = await site.ask("Mailchimpsync", "undorun", run_id=run["id"])
        return shown(took, sum(one["count"] for one in done["summary"]), plan_ms=planned.wall * 1000)


async def reads(given: dict[str, Any]) -> Found:
    """Questions of the status and search pages, each the middle of several and the slowest of them, milliseconds."""
    async with opened(given) as site:
        addresses = await site.app.store.read(some_subscribed, REPEATS)
        total = await site.app.store.read(count_rows)

        def sought(**params: Any) -> Callable[[int], Awaitable[Any]]:
            return lambda _: site.ask("MailchimpsyncCache", "get", mailchimp_list_id=given["list_id"], **params)

        found: dict[str, Any] = {}
        laps: list[float] = []
        for number in range(REPEATS):
            await site.app.store.write(_touch, number)  # whatever was remembered of a count is out of date
            begun = time.perf_counter()
            await site.ask("Mailchimpsync", "getstatus")
            laps.append(time.perf_counter() - begun)
        found["getstatus after a commit"] = spread(laps)
        page = {"options": {"limit": 25}}
        middle = {"options": {"limit": 25, "offset": total // 3}}
        for name, question in {
            "get by address": lambda n: sought(mailchimp_email=addresses[n % len(addresses)])(n),
            "get, first page": sought(**page),
            "get by mailchimp_status": sought(mailchimp_status="subscribed", **page),
            "get by mailchimp_status, deep": sought(mailchimp_status="subscribed", **middle),
            "get by rare mailchimp_status": sought(mailchimp_status="transactional", **page),
            "get by civicrm_status": sought(civicrm_status="Added", **page),
            "get by civicrm_status, deep": sought(civicrm_status="Added", **middle),
            "get by absent civicrm_status": sought(civicrm_status="Pending", **page),
            "getcount by civicrm_status": lambda n: site.ask(
                "MailchimpsyncCache", "getcount", mailchimp_list_id=given["list_id"], civicrm_status="Added"
            ),
        }.items():
            laps = []
            for number in range(10):
                begun = time.perf_counter()
                await question(number)
                laps.append(time.perf_counter() - begun)
            found[name] = spread(laps)
        return {"rows": total, "reads": found, "peak_mb": peak_mb()}


async def webhook(given: dict[str, Any]) -> Found:
    """Somebody leaves by the link in a mail: from Mailchimp's webhook to the group, milliseconds."""
    async with opened(given) as site, httpx.AsyncClient(base_url=given["control"]) as control, serving(site.app):
        await site.ask(
            "Mailchimpsync", "updatewebhook", process="add_webhook", api_key=given["key"], list_id=given["list_id"]
        )
        laps = []
        for address in await site.app.store.read(some_subscribed, REPEATS):
            begun = time.perf_counter()
            await act(control, {"action": "unsubscribe", "email": address})
            while await site.app.store.read(group_status, address) == "Added":  # noqa: ASYNC110  others have no event for us
                await asyncio.sleep(0.002)
            laps.append(time.perf_counter() - begun)
        return {"rows": REPEATS, "reads": {"webhook, end to end": spread(laps)}, "peak_mb": peak_mb()}


def _touch(conn: Connection, number: int) -> None:
    conn.execute(text("UPDATE civicrm_contact SET job_title = :title WHERE id = 1"), {"title": str(number)})


def group_status(conn: Connection, address: str) -> str | None:
    """The status in the group of the owner of an address."""
    joined = group_contact.join(email, email.c.contact_id == group_contact.c.contact_id)
    return conn.execute(select(group_contact.c.status).select_from(joined).where(email.c.email == address)).scalar()


def some_subscribed(conn: Connection, count: int) -> list[str]:
    """Addresses of subscribed members, far apart."""
    total = count_rows(conn)
    step = max(1, total // (count * 4))
    ids = list(range(1, total, step))
    rows = conn.execute(
        select(cache.c.mailchimp_email)
        .join(contact, contact.c.id == cache.c.civicrm_contact_id)
        .where(cache.c.id.in_(ids), cache.c.mailchimp_status == "subscribed", cache.c.sync_status == "ok")
        .limit(count)
    ).scalars()
    return [str(one) for one in rows]


def count_rows(conn: Connection) -> int:
    """How many cache rows there are."""
    return int(conn.execute(select(func.count()).select_from(cache)).scalar_one())


def count_where(conn: Connection, where: Any) -> int:
    """How many cache rows stand so."""
    return int(conn.execute(select(func.count()).select_from(cache).where(where)).scalar_one())


def spread(laps: list[float]) -> dict[str, float]:
    """The middle and the slowest of several durations, in milliseconds."""
    return {"middle_ms": round(statistics.median(laps) * 1000, 2), "worst_ms": round(max(laps) * 1000, 2)}


def shown(took: Measured, rows: int, **more: float) -> Found:
    """What a case prints."""
    return {"rows": rows, "wall": took.wall, "cpu": took.cpu, "peak_mb": peak_mb(), **more}


CASES: dict[str, Callable[[dict[str, Any]], Awaitable[Found]]] = {
    "known": first_sync,
    "new": first_sync,
    "push": push,
    "nothing_changed": nothing_changed,
    "first_data": first_data,
    "no_new_data": no_new_data,
    "undo": undo,
    "incremental": incremental,
    "full_again": full_again,
    "reads": reads,
    "webhook": webhook,
}


def main() -> None:
    """Run one case and print what it took."""
    with asyncio.Runner(loop_factory=priority_loop) as runner:  # as `serve` has
        found = runner.run(CASES[sys.argv[1]](orjson.loads(sys.argv[2])))  # type: ignore[arg-type]
    sys.stdout.write(orjson.dumps(found).decode() + "\n")


if __name__ == "__main__":
    main()
