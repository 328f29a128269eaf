"""Stores webhook events from Mailchimp and processes them later, each event once.

An event only says which member to fetch (``sync_member``) or which batch to check (``watcher``). It is ``new`` until
that succeeds, is retried at growing gaps while Mailchimp does not answer, and is ``failed`` with its error when retries
do not help; ``ignored`` events belong to audiences that are no longer linked. New events survive a crash.

Deliveries come late, twice and in any order. The same event is stored once. An equal event after another event of the
same member is a new one, because events carry whole seconds.
"""

import asyncio
import hashlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection, and_, delete, func, insert, or_, select
from sqlalchemy import update as change

from civiapi.runtime.shutdown import end_task
from civiapi.store.databases.expressions import in_list
from civiapi.store.errors import NotUnique, StoreError
from civiapi.store.leases import Lease, LeaseLost
from sync.connections.config import Link, read_config
from sync.context import SyncContext
from sync.errors import SyncError
from sync.inbox.sync_member import MemberRef, sync_member
from sync.leases import hold_lease
from sync.mailchimp.errors import BadKey, MailchimpError
from sync.outbox.watcher import Watcher, wait_for_event
from sync.store.tables import webhook_event as event

AUDIENCE, BATCH = "audience", "batch"
NEW, DONE, IGNORED, FAILED = "new", "done", "ignored", "failed"

MAX_TRIES = 10
FIRST_GAP, MAX_GAP = 5, 900
"""Seconds between two tries of an event; the gap doubles. Ten tries take about an hour."""

BUSY_GAP = 2
"""Seconds until an event is tried again that came while a run held its audience."""

AT_ONCE = 50
"""Events of one audience that are processed under one lease, so that a waiting run gets its turn."""

IDLE = 5.0
KEPT_SECONDS = 30 * 24 * 3600
KEPT_FAILED_SECONDS = 90 * 24 * 3600
MAX_KEPT = 100_000
"""Processed events that are kept, failed ones included; a sender who knows a secret can send any number."""

CLEANUP_SECONDS = 3600
CLEANUP_EVENTS = 1000
DELETED_AT_ONCE = 500

MAX_WAITING = 10_000
"""Events of one account that wait to be processed. Mailchimp delivers a refused one again; a sync finds the rest."""

RECOUNT_SECONDS = 2.0
USED_FIELDS = ("type", "fired_at")
USED_DATA = ("list_id", "id", "email", "old_email", "new_email", "action")
MAX_TEXT = 255  # characters of a field

log = structlog.get_logger(__name__)


class InboxFull(SyncError):
    """Too many events of an account wait already; this one was not stored."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_WAITING} events of this account wait to be processed; send this one again later.")


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be processed. *fields* are those of ``used_fields``."""

    id: int
    kind: str
    list_id: str
    fields: Mapping[str, Any]
    tries: int

    @property
    def data(self) -> Mapping[str, Any]:
        """The event's ``data``."""
        found = self.fields.get("data")
        return found if isinstance(found, dict) else {}


class Inbox:
    """Stores webhook events and processes them in the background."""

    def __init__(self, ctx: SyncContext, watcher: Watcher, *, max_tries: int = MAX_TRIES) -> None:
        self._ctx = ctx
        self._watcher = watcher
        self._max_tries = max_tries
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._cleaned_up = 0
        self._processed = 0
        self._backlog = _Backlog()

    async def receive_audience_webhook(self, fields: Mapping[str, Any]) -> bool:
        """Store an event of a member; False for one that is stored already. Raises ``InboxFull``."""
        return await self._receive(AUDIENCE, fields)

    async def receive_batch_webhook(self, fields: Mapping[str, Any]) -> bool:
        """Store that a batch is finished; False for an event that is stored already. Raises ``InboxFull``."""
        return await self._receive(BATCH, fields)

    async def start(self) -> None:
        """Begin to process events, those left by an earlier process first."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="webhook inbox")

    async def stop(self) -> None:
        """Stop; an event in progress is processed again after the next start."""
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    async def retry(self, event_id: int) -> bool:
        """Process an event again, as if it had just come; False when there is none with this id."""
        found = await self._ctx.store.write(retry_event, event_id, int(time.time()))
        self._woken.set()
        return found

    async def process_due(self) -> int:
        """Process every event that is due; returns how many are done, ignored or failed for good."""
        due = await self._ctx.store.read(_due, int(time.time()))
        config = await self._ctx.store.read(read_config)
        batches = [one for one in due if one.kind == BATCH]
        for one in batches:
            await self._check_batch(one)
        by_list: dict[str, list[Event]] = defaultdict(list)
        for one in due:
            if one.kind == AUDIENCE:
                by_list[one.list_id].append(one)
        done = await asyncio.gather(
            *(
                self._process_audience(config.links.get(list_id), events[:AT_ONCE])
                for list_id, events in by_list.items()
            )
        )
        return len(batches) + sum(done)

    async def _receive(self, kind: str, fields: Mapping[str, Any]) -> bool:
        body = used_fields(fields)
        if self._backlog.is_outdated(time.monotonic()):
            self._backlog = await self._ctx.store.read(_read_backlog)
        account = self._backlog.account_of(kind, _text(body["data"], "list_id"))
        if self._backlog.waiting[account] >= MAX_WAITING:
            log.warning("a webhook event was refused: too many wait", kind=kind, waiting=MAX_WAITING)
            raise InboxFull
        try:
            kept = await self._ctx.store.write(store_event, kind, body, int(time.time()))
        except NotUnique:  # another process stored it in the same moment
            return False
        if kept:
            self._backlog.waiting[account] += 1
            self._woken.set()
        return kept

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            worked = 0
            try:
                worked = await self.process_due()
                self._processed += worked
                await self._clean_up()
            except (StoreError, SyncError) as error:
                log.warning("webhook events could not be processed", error=str(error))
            if not worked:
                await wait_for_event(self._woken, await self._pause())

    async def _pause(self) -> float:
        """Seconds until the next event is due, at most `IDLE`, as other processes store events too."""
        try:
            next_due = await self._ctx.store.read(_next_due)
        except StoreError:
            return IDLE
        return IDLE if next_due is None else max(0.1, min(IDLE, next_due - time.time()))

    async def _check_batch(self, one: Event) -> None:
        """Let the watcher check a batch; another program's batch is ignored."""
        known = await self._watcher.check_batch(_text(one.data, "id"))
        await self._ctx.store.write(_finish, one.id, DONE if known else IGNORED, None)

    async def _process_audience(self, link: Link | None, events: Sequence[Event]) -> int:
        """Process events of one audience, one after another; none while a run holds the audience."""
        if link is None:
            for one in events:
                await self._ctx.store.write(_finish, one.id, IGNORED, "The audience is no longer linked.")
            return len(events)
        async with hold_lease(self._ctx, link.list_id, brief=True) as lease:
            if lease is None:
                await self._ctx.store.write(_postpone, [one.id for one in events], int(time.time()) + BUSY_GAP)
                return 0
            return sum([await self._try(link, lease, one) for one in events])

    async def _try(self, link: Link, lease: Lease, one: Event) -> int:
        """Process one event and store the result; 1 when it needs no other try."""
        try:
            await sync_member(self._ctx, self._ctx.audience(link), lease, read_member_ref(one))
        except MailchimpError as error:
            retryable = error.may_be_retried or isinstance(error, BadKey)  # a revoked key may be replaced
            return await self._failed(one, str(error), may_be_retried=retryable)
        except LeaseLost:
            return 0
        except SyncError as error:
            return await self._failed(one, str(error), may_be_retried=False)
        except StoreError as error:
            return await self._failed(one, str(error), may_be_retried=True)
        except Exception as error:  # the inbox's catch-all: an unexpected error must not delay other events
            log.exception("a webhook event failed unexpectedly", event_id=one.id)
            return await self._failed(one, f"{type(error).__name__} (see the log)", may_be_retried=True)
        await self._ctx.store.write(_finish, one.id, DONE, None)
        return 1

    async def _failed(self, one: Event, why: str, *, may_be_retried: bool) -> int:
        tries = one.tries + 1
        log.warning("a webhook event could not be processed", event_id=one.id, tries=tries, error=why)
        if may_be_retried and tries < self._max_tries:
            gap = min(MAX_GAP, FIRST_GAP * 2 ** (tries - 1))
            await self._ctx.store.write(_try_later, one.id, tries, int(time.time()) + gap, why)
            return 0
        await self._ctx.store.write(_finish, one.id, FAILED, why, tries)
        return 1

    async def _clean_up(self) -> None:
        now = int(time.time())
        if now - self._cleaned_up >= CLEANUP_SECONDS or self._processed >= CLEANUP_EVENTS:
            self._cleaned_up, self._processed = now, 0
            last_id = await self._ctx.store.read(find_last_surplus)
            while await self._ctx.store.write(delete_old_events, now, last_id) == DELETED_AT_ONCE:
                pass


@dataclass(slots=True)
class _Backlog:
    """How many events wait for each account, as of a short while ago; ``""``: finished batches, of all accounts."""

    accounts: Mapping[str, str] = field(default_factory=dict)  # by audience
    waiting: Counter[str] = field(default_factory=Counter)
    read_at: float = -math.inf

    def is_outdated(self, now: float) -> bool:
        return now - self.read_at > RECOUNT_SECONDS

    def account_of(self, kind: str, list_id: str) -> str:
        return "" if kind == BATCH else self.accounts.get(list_id, list_id)


def _read_backlog(conn: Connection) -> _Backlog:
    backlog = _Backlog({list_id: link.api_key for list_id, link in read_config(conn).links.items()})
    count = func.count().label("waiting")
    rows = conn.execute(
        select(event.c.kind, event.c.list_id, count)
        .where(event.c.status == NEW)
        .group_by(event.c.kind, event.c.list_id)
    )
    for row in rows:
        backlog.waiting[backlog.account_of(row.kind, row.list_id or "")] += row.waiting
    backlog.read_at = time.monotonic()
    return backlog


def used_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event that are used, as texts of bounded length; Mailchimp sends a member's data besides."""
    data = fields.get("data")
    data = data if isinstance(data, dict) else {}
    return {
        **{name: text for name in USED_FIELDS if (text := _text(fields, name)[:MAX_TEXT])},
        "data": {name: text for name in USED_DATA if (text := _text(data, name)[:MAX_TEXT])},
    }


def read_member_ref(one: Event) -> MemberRef:
    """The member that an event is about."""
    kind = _text(one.fields, "type")
    if kind == "upemail":
        return MemberRef(kind, _text(one.data, "new_email"), _text(one.data, "old_email"))
    return MemberRef(kind, _text(one.data, "email"))


def store_event(conn: Connection, kind: str, fields: Mapping[str, Any], at_s: int) -> bool:
    """Store an event at *at_s* (UTC seconds); False when it is stored already. Raises NotUnique in a race."""
    print_ = fingerprint(kind, fields)
    known = conn.execute(select(event).where(event.c.fingerprint == print_).with_for_update()).one_or_none()
    data = fields.get("data")
    data = data if isinstance(data, dict) else {}
    if known is not None:
        if known.status == NEW or (known.status != FAILED and not _is_new_event(conn, known, fields)):
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
    """A hash of what identifies an event: type, time, audience and member; of all fields where it has no time."""
    data = fields.get("data")
    data = data if isinstance(data, dict) else {}
    names = ("list_id", "id", "email", "old_email", "new_email", "action")
    identity = [kind, _text(fields, "type"), _text(fields, "fired_at"), *(_text(data, name).lower() for name in names)]
    whole = identity if identity[2] else [*identity, fields]
    return hashlib.sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()


def retry_event(conn: Connection, event_id: int, at_s: int) -> bool:
    """Make an event due (again) at *at_s*; False when there is none with this id."""
    again = conn.execute(
        change(event).where(event.c.id == event_id).values(status=NEW, tries=0, next_try_s=at_s, error=None)
    )
    return again.rowcount == 1


def _is_new_event(conn: Connection, known: Any, fields: Mapping[str, Any]) -> bool:
    """Whether an event equal to a processed one is a new event and not a second delivery.

    It is new when it has no time, or when another event of the same member came since.
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


def _next_due(conn: Connection) -> int | None:
    return conn.execute(
        select(event.c.next_try_s).where(event.c.status == NEW).order_by(event.c.next_try_s).limit(1)
    ).scalar()


def _finish(conn: Connection, event_id: int, status: str, error: str | None, tries: int | None = None) -> None:
    values: dict[str, Any] = {"status": status, "error": error, "next_try_s": 0}
    if tries is not None:
        values["tries"] = tries
    # Another process may have processed it at the same time; its result is kept.
    conn.execute(change(event).where(event.c.id == event_id, event.c.status == NEW).values(values))


def _try_later(conn: Connection, event_id: int, tries: int, at_s: int, error: str) -> None:
    still_new = change(event).where(event.c.id == event_id, event.c.status == NEW)
    conn.execute(still_new.values(tries=tries, next_try_s=at_s, error=error))


def _postpone(conn: Connection, event_ids: Sequence[int], at_s: int) -> None:
    conn.execute(change(event).where(event.c.id.in_(event_ids)).values(next_try_s=at_s))


def find_last_surplus(conn: Connection) -> int:
    """The id up to which processed events are more than ``MAX_KEPT``; 0 where they are not."""
    newest = select(event.c.id).where(event.c.status != NEW).order_by(event.c.id.desc())
    return conn.execute(newest.offset(MAX_KEPT).limit(1)).scalar() or 0


def delete_old_events(conn: Connection, now_s: int, last_id: int) -> int:
    """Delete some processed events: old ones, and those up to *last_id*; returns their number.

    Mailchimp repeats none after so long. Failed ones are kept longer, so that they can be retried.
    """
    old = or_(
        and_(event.c.status.in_((DONE, IGNORED)), event.c.received_s < now_s - KEPT_SECONDS),
        and_(event.c.status == FAILED, event.c.received_s < now_s - KEPT_FAILED_SECONDS),
        and_(event.c.status != NEW, event.c.id <= last_id),
    )
    ids = conn.execute(select(event.c.id).where(old).order_by(event.c.id).limit(DELETED_AT_ONCE)).scalars().all()
    if ids:
        conn.execute(delete(event).where(in_list(event.c.id, ids)))
    return len(ids)
