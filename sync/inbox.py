"""What Mailchimp's webhooks told us, written down first and worked on later, each event once.

An event is only a hint about whom to look at (``single``) or which batch to ask about (``watcher``). It stays ``new``
until that worked, is tried again at growing gaps while Mailchimp cannot be asked, and is ``failed`` with its error when
that does not help; ``ignored`` events were about an audience that is linked no more. A crash loses nothing: whoever
starts next finds the new ones.

What a newcomer trips over: deliveries come late, twice and in any order. The same event twice is kept once. But the
same words said again after something else happened to the member are news (events bear whole seconds).
"""

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy import update as change

from civiapi.store.errors import NotUnique, StoreError
from sync.claims import Claim, ClaimLost
from sync.config import Link, read_config
from sync.context import SyncContext
from sync.errors import SyncError
from sync.holding import held
from sync.mailchimp.errors import BadKey, MailchimpError
from sync.single import Hint, sync_member
from sync.stopping import end_task
from sync.tables import webhook_event as event
from sync.watcher import Watcher, wait_for_event

AUDIENCE, BATCH = "audience", "batch"
NEW, DONE, IGNORED, FAILED = "new", "done", "ignored", "failed"

MAX_TRIES = 10
FIRST_GAP, LONGEST_GAP = 5, 900
"""Seconds between two tries of an event; the gap doubles. Ten tries are about an hour."""

BUSY_GAP = 2
"""Seconds after which an event is taken up again that came while a run held its audience."""

AT_ONCE = 50
"""Events of one audience that are worked on under one claim, so that a run that waits gets its turn."""

IDLE = 5.0
KEPT_SECONDS = 30 * 24 * 3600
TIDY_SECONDS = 3600
SECRET_FIELDS = frozenset({"secret", "q"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be worked on. *fields* are as Mailchimp sent them, bracketed names as nested maps."""

    id: int
    kind: str
    list_id: str
    fields: Mapping[str, Any]
    tries: int

    @property
    def data(self) -> Mapping[str, Any]:
        """What Mailchimp sent under ``data``."""
        found = self.fields.get("data")
        return found if isinstance(found, dict) else {}


class Inbox:
    """Keeps what webhooks tell, and works on it in the background."""

    def __init__(self, ctx: SyncContext, watcher: Watcher) -> None:
        self._ctx = ctx
        self._watcher = watcher
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._tidied = 0

    async def receive_audience_webhook(self, fields: Mapping[str, Any]) -> bool:
        """Keep an event of a member; False for one that is kept already. It is worked on later."""
        return await self._receive(AUDIENCE, fields)

    async def receive_batch_webhook(self, fields: Mapping[str, Any]) -> bool:
        """Keep that a batch is finished; False for one that is kept already."""
        return await self._receive(BATCH, fields)

    async def start(self) -> None:
        """Begin to work on events, those left by an earlier process first."""
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="webhook inbox")

    async def stop(self) -> None:
        """Stop; what was being worked on is taken up again by whoever starts next."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    async def retry(self, event_id: int) -> bool:
        """Have an event worked on again, as if it had just come; False when there is none with this id."""
        found = await self._ctx.store.write(retry_event, event_id, int(time.time()))
        self._woken.set()
        return found

    async def work_off(self) -> int:
        """Work on every event that is due; returns how many were finished with, one way or another."""
        due = await self._ctx.store.read(_due, int(time.time()))
        config = await self._ctx.store.read(read_config)
        batches = [one for one in due if one.kind == BATCH]
        for one in batches:
            await self._hint(one)
        by_list: dict[str, list[Event]] = defaultdict(list)
        for one in due:
            if one.kind == AUDIENCE:
                by_list[one.list_id].append(one)
        done = await asyncio.gather(
            *(self._work_on(config.links.get(list_id), events[:AT_ONCE]) for list_id, events in by_list.items())
        )
        return len(batches) + sum(done)

    async def _receive(self, kind: str, fields: Mapping[str, Any]) -> bool:
        body = {name: value for name, value in fields.items() if name not in SECRET_FIELDS}
        try:
            kept = await self._ctx.store.write(keep_event, kind, body, int(time.time()))
        except NotUnique:  # another process kept it in this moment
            return False
        if kept:
            self._woken.set()
        return kept

    async def _work(self) -> None:
        while True:
            self._woken.clear()
            worked = 0
            try:
                worked = await self.work_off()
                await self._tidy()
            except (StoreError, SyncError) as error:
                log.warning("webhook events could not be worked on", error=str(error))
            if not worked:
                await wait_for_event(self._woken, await self._pause())

    async def _pause(self) -> float:
        """Seconds until the next event is due; other processes keep events too, so never long."""
        try:
            soonest = await self._ctx.store.read(_soonest)
        except StoreError:
            return IDLE
        return IDLE if soonest is None else max(0.1, min(IDLE, soonest - time.time()))

    async def _hint(self, one: Event) -> None:
        """Let the watcher ask about a batch; another program's is none of ours."""
        known = await self._watcher.hint(_text(one.data, "id"))
        await self._ctx.store.write(_end, one.id, DONE if known else IGNORED, None)

    async def _work_on(self, link: Link | None, events: Sequence[Event]) -> int:
        """Work on events of one audience, one after another; none while a run holds the audience."""
        if link is None:
            for one in events:
                await self._ctx.store.write(_end, one.id, IGNORED, "The audience is linked no more.")
            return len(events)
        async with held(self._ctx, link.list_id, brief=True) as claim:
            if claim is None:
                await self._ctx.store.write(_put_off, [one.id for one in events], int(time.time()) + BUSY_GAP)
                return 0
            return sum([await self._try(link, claim, one) for one in events])

    async def _try(self, link: Link, claim: Claim, one: Event) -> int:
        """Work on one event and write down how it went; 1 when it is finished with."""
        options = self._ctx.options
        audience = link.audience(self._ctx.store.clock, respect_privacy=options.respect_privacy)
        try:
            await sync_member(self._ctx, audience, claim, read_hint(one))
        except MailchimpError as error:
            mendable = error.may_be_retried or isinstance(error, BadKey)  # somebody may put a revoked key right
            return await self._failed(one, str(error), may_be_retried=mendable)
        except ClaimLost:
            return 0
        except SyncError as error:
            return await self._failed(one, str(error), may_be_retried=False)
        except StoreError as error:
            return await self._failed(one, str(error), may_be_retried=True)
        except Exception as error:  # the way in of all that runs here: one bad surprise must not hold up the others
            log.exception("a webhook event met a fault of ours", event_id=one.id)
            return await self._failed(one, f"{type(error).__name__} (see the log)", may_be_retried=True)
        await self._ctx.store.write(_end, one.id, DONE, None)
        return 1

    async def _failed(self, one: Event, why: str, *, may_be_retried: bool) -> int:
        tries = one.tries + 1
        log.warning("a webhook event could not be worked on", event_id=one.id, tries=tries, error=why)
        if may_be_retried and tries < MAX_TRIES:
            gap = min(LONGEST_GAP, FIRST_GAP * 2 ** (tries - 1))
            await self._ctx.store.write(_try_later, one.id, tries, int(time.time()) + gap, why)
            return 0
        await self._ctx.store.write(_end, one.id, FAILED, why, tries)
        return 1

    async def _tidy(self) -> None:
        now = int(time.time())
        if now - self._tidied >= TIDY_SECONDS:
            self._tidied = now
            await self._ctx.store.write(forget_old, now - KEPT_SECONDS)


def read_hint(one: Event) -> Hint:
    """Whom an event is about."""
    kind = _text(one.fields, "type")
    if kind == "upemail":
        return Hint(kind, _text(one.data, "new_email"), _text(one.data, "old_email"))
    return Hint(kind, _text(one.data, "email"))


def keep_event(conn: Connection, kind: str, fields: Mapping[str, Any], at_s: int) -> bool:
    """Write an event down at *at_s* (UTC seconds); False when it stands there already. Raises NotUnique in a race."""
    print_ = fingerprint(kind, fields)
    known = conn.execute(select(event).where(event.c.fingerprint == print_).with_for_update()).one_or_none()
    data = fields.get("data")
    data = data if isinstance(data, dict) else {}
    if known is not None:
        if known.status == NEW or (known.status != FAILED and not _is_said_anew(conn, known, fields)):
            return False
        conn.execute(delete(event).where(event.c.id == known.id))
    conn.execute(
        insert(event).values(
            kind=kind,
            list_id=_text(data, "list_id")[:32],
            type=_text(fields, "type")[:32],
            address=(_text(data, "email") or _text(data, "new_email"))[:255] or None,
            fingerprint=print_,
            body=orjson.dumps(fields).decode(),
            received_s=at_s,
            next_try_s=at_s,
        )
    )
    return True


def fingerprint(kind: str, fields: Mapping[str, Any]) -> str:
    """What is the same for the same event: what happened, when, where and to whom; without a time, all of it."""
    data = fields.get("data")
    data = data if isinstance(data, dict) else {}
    names = ("list_id", "id", "email", "old_email", "new_email", "action")
    said = [kind, _text(fields, "type"), _text(fields, "fired_at"), *(_text(data, name).lower() for name in names)]
    whole = said if said[2] else [*said, fields]
    return hashlib.sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()


def retry_event(conn: Connection, event_id: int, at_s: int) -> bool:
    """Let an event be worked on (again) from *at_s* on; False when there is none with this id."""
    again = conn.execute(
        change(event).where(event.c.id == event_id).values(status=NEW, tries=0, next_try_s=at_s, error=None)
    )
    return again.rowcount == 1


def _is_said_anew(conn: Connection, known: Any, fields: Mapping[str, Any]) -> bool:
    """True when an event that was worked on comes again and is not just delivered twice.

    It is news when it bears no time, or when something else happened to the same member since.
    """
    if not _text(fields, "fired_at"):
        return True
    later = conn.execute(
        select(event.c.body)
        .where(event.c.list_id == known.list_id, event.c.kind == known.kind, event.c.id > known.id)
        .order_by(event.c.id.desc())
        .limit(AT_ONCE)
    ).scalars()
    mine = _addresses(fields)
    return any(mine & _addresses(orjson.loads(body)) for body in later)


def _addresses(fields: Mapping[str, Any]) -> set[str]:
    data = fields.get("data")
    data = data if isinstance(data, dict) else {}
    return {_text(data, name).lower() for name in ("email", "old_email", "new_email")} - {""}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value.strip() if isinstance(value, str) else ""


def _due(conn: Connection, now_s: int) -> list[Event]:
    rows = conn.execute(
        select(event.c.id, event.c.kind, event.c.list_id, event.c.body, event.c.tries)
        .where(event.c.status == NEW, event.c.next_try_s <= now_s)
        .order_by(event.c.id)
        .limit(AT_ONCE * 4)
    )
    return [Event(row.id, row.kind, row.list_id or "", orjson.loads(row.body), row.tries) for row in rows]


def _soonest(conn: Connection) -> int | None:
    return conn.execute(
        select(event.c.next_try_s).where(event.c.status == NEW).order_by(event.c.next_try_s).limit(1)
    ).scalar()


def _end(conn: Connection, event_id: int, status: str, error: str | None, tries: int | None = None) -> None:
    values: dict[str, Any] = {"status": status, "error": error, "next_try_s": 0}
    if tries is not None:
        values["tries"] = tries
    # Another process may have worked on it at the same time: what it found stands.
    conn.execute(change(event).where(event.c.id == event_id, event.c.status == NEW).values(values))


def _try_later(conn: Connection, event_id: int, tries: int, at_s: int, error: str) -> None:
    still_new = change(event).where(event.c.id == event_id, event.c.status == NEW)
    conn.execute(still_new.values(tries=tries, next_try_s=at_s, error=error))


def _put_off(conn: Connection, event_ids: Sequence[int], at_s: int) -> None:
    conn.execute(change(event).where(event.c.id.in_(event_ids)).values(next_try_s=at_s))


def forget_old(conn: Connection, before_s: int) -> None:
    """Drop events that were finished with long ago; Mailchimp repeats nothing after so long. Failed ones stay."""
    conn.execute(delete(event).where(event.c.status.in_((DONE, IGNORED)), event.c.received_s < before_s))
