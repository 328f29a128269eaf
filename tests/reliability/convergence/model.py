"""The model of one history: a database, a Mailchimp, a clock, people at both sides, webhooks, and the syncing process.

The process may be killed or frozen and replaced by another. What people do is recorded in the ledger; what the sync
does at Mailchimp is observed, so that nobody who left is subscribed again without a change in CiviCRM.
"""

import asyncio
import contextlib
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from civiapi.http import forms
from civiapi.store.leases import LeaseLost
from sync.audience import Privacy
from sync.connections.clients import Clients
from sync.context import UnitSizes
from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import Clock
from sync.emulator.model.faults import FaultAction, FaultRule
from sync.emulator.model.records import Delivery, Hook, Interest, InterestCategory, Member, MergeField
from sync.emulator.protocol.exchange import Request, Response
from sync.emulator.protocol.problems import Problem
from sync.emulator.rules import actions
from sync.emulator.world import World
from sync.errors import SyncError
from sync.mailchimp.errors import MailchimpError
from sync.service import SyncService
from tests.reliability.convergence import civicrm as crm
from tests.reliability.convergence.civicrm import CHOICES, JOB, KEY, LIST_ID, MAIL, TREES
from tests.reliability.convergence.faults import HOOKS, KILLED, FaultPlan, Kind
from tests.reliability.convergence.harness import Harness, SavedState
from tests.reliability.convergence.ledger import Ledger, MemberState
from tests.reliability.convergence.store import Killed, KillSwitch, MemoryStore
from tests.reliability.convergence.wire import Traffic, Wire, move_batches
from tests.support.linked_site import GROUP, TREES_GROUP, sync_settings

EXPECTED = (Killed, asyncio.CancelledError, SyncError, MailchimpError, LeaseLost)
"""Errors that work may end with: killed, or stopped by Mailchimp or another process."""

BASE_URL = "http://mailchimp.example.org"
RECEIVES = ("subscribed", "pending")
HOOK = Hook(
    "b0b0b0b0b0",
    "http://civicrm.example.org/hook",
    LIST_ID,
    dict.fromkeys(("subscribe", "unsubscribe", "profile", "cleaned", "upemail"), True),
    {"user": True, "admin": True, "api": False},
)


class WatchedWorld(World):
    """A Mailchimp with *faults* that calls *on_change* with each writing request and its response."""

    on_change: Callable[[Request, Response], None] | None = None
    faults: FaultPlan | None = None
    handed_over: float = math.inf
    """Since when Mailchimp has the operation of a batch that it carries out now, by its clock; infinity at any other
    time."""

    def execute(self, request: Request, operation_id: str) -> Response | None:
        batches = request.account.batches.values() if request.account is not None else ()
        self.handed_over = min((one.submitted_at for one in batches if one.status == "started"), default=math.inf)
        try:
            return super().execute(request, operation_id)
        finally:
            self.handed_over = math.inf

    def handle(self, request: Request) -> Response:
        response = super().handle(request)
        if self.on_change is not None and request.method != "GET":
            self.on_change(request, response)
        return response

    def match_fault(self, request: Request, operation_id: str = "") -> FaultAction | None:
        action = super().match_fault(request, operation_id)
        if not operation_id or self.faults is None:
            return action
        if action is None:
            return self.faults.operation()
        self.faults.of_rule(action, is_operation=True)
        return action


@dataclass
class Process:
    """One syncing process, until it is killed."""

    service: SyncService
    kill_switch: KillSwitch
    clients: Clients


@dataclass
class Model:
    """One history."""

    harness: Harness
    skew: int = 0
    has_interest: bool = True
    privacy: Privacy = Privacy.KEEP
    """Whether interest and permission are linked with groups: rows without any are reconciled in sets."""
    one_way: bool = False
    """Whether the group is a smart group, which is a source."""
    page: int = 1000
    """Members to a page of a fetch."""
    seed: int = 0
    start: SavedState | None = None
    faults: FaultPlan = field(default_factory=FaultPlan)
    ledger: Ledger = field(default_factory=Ledger)
    traffic: Traffic = field(default_factory=Traffic)
    contacts: list[int] = field(default_factory=list)
    batches_move: bool = True
    held_back: list[Delivery] = field(default_factory=list)
    """Webhooks to be delivered late."""
    interruptions: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    """What people do during a sync: after how many requests from now, and what."""
    move_row: Callable[[Random], None] | None = None
    """A change at Mailchimp between two pages."""
    violations: list[str] = field(default_factory=list)
    """Violations that are visible only when they happen, not at the end."""

    def __post_init__(self) -> None:
        harness = self.harness
        self.rng = Random(self.seed)
        if self.start is None:
            harness.clock.move_to(0.0)
            harness.memory.restore(harness.empty)
            self.world = WatchedWorld(clock=Clock(), key=KEY)
            self.world.base_url = BASE_URL  # results lie where the API is
            self.world.clock.skew = float(self.skew)
            self._seed_audience(self.world.add_audience(list_id=LIST_ID))
            if not self.has_interest:
                harness.memory.unit(crm.unlink_choices)
            if self.one_way:
                harness.memory.unit(crm.make_smart, self.at)
        else:
            harness.clock.move_to(self.start.elapsed)
            harness.memory.restore(self.start.database)
            self.world = pickle.loads(self.start.world)
            self.ledger = pickle.loads(self.start.ledger)
            self.contacts = list(self.start.contacts)
        self.world.rng = Random(self.seed)
        self.audience = self.world.find_audience(LIST_ID)[1]
        self.world.on_change, self.world.faults = self._api_changed, self.faults
        self._page_before: str | None = None
        self._kill_switch = KillSwitch()
        self.process = self.spawn()

    def _seed_audience(self, audience: EmulatedAudience) -> None:
        """A webhook, an interest, and a marketing permission."""
        audience.hooks[HOOK.id] = HOOK
        category = InterestCategory("c4t3g0ry00", "Kind")
        category.interests[TREES] = Interest(TREES, category.id, "Trees")
        audience.categories[category.id] = category
        audience.marketing_permissions = [{"marketing_permission_id": MAIL, "text": "E-mail"}]
        number = max(audience.merge_fields) + 1
        audience.merge_fields[number] = MergeField(number, JOB, "Job")

    def freeze(self) -> SavedState:
        """Both ends as they stand now, to begin histories with."""
        self.world.on_change = self.world.faults = None
        world, ledger = pickle.dumps(self.world), pickle.dumps(self.ledger)
        return SavedState(self.harness.memory.copy(), world, ledger, self.harness.clock.elapsed, tuple(self.contacts))

    # Time

    @property
    def now(self) -> int:
        """True whole seconds since 1970."""
        return int(datetime.now(UTC).timestamp())

    @property
    def at(self) -> str:
        """Now, as the site writes it."""
        return self.harness.site_clock.now()

    @property
    def slack(self) -> int:
        """How far a date of Mailchimp's may be off once it is on our clock."""
        return 0 if self.skew == 0 else 2 if abs(self.skew) >= 5 else 1 + abs(self.skew)

    # Processes

    def spawn(self, kill_switch: KillSwitch | None = None) -> Process:
        """A new process on the same database."""
        self._kill_switch = kill_switch or KillSwitch()
        store = MemoryStore(self.harness.memory, self.harness.site_clock, self._kill_switch)
        wire = Wire(self.world, self.traffic, self._kill_switch, self.faults, self._before_request)
        clients = Clients(base_url=BASE_URL, transport=wire)
        sizes = UnitSizes(members_per_page=self.page)
        service = SyncService(store, clients, sync_settings(poll_seconds=1.0, on_opt_out=self.privacy), sizes=sizes)
        self.process = Process(service, self._kill_switch, clients)
        return self.process

    async def until_killed(self, *work: Any) -> bool:
        """Do *work*, all at once; True when the process died of it, which takes all it had under way with it."""
        mine = asyncio.current_task()
        tasks = [asyncio.ensure_future(one) for one in work]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        died = self._kill_switch.is_dead
        if died:
            self.faults.count(KILLED[self._kill_switch.died_at])
            left = [task for task in asyncio.all_tasks() if task is not mine]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            self.spawn()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, EXPECTED):
                raise result
        return died

    def _before_request(self, request: Request) -> None:
        if self.batches_move:
            move_batches(self.world, self.rng)
        if request.method == "GET" and request.path == f"/lists/{LIST_ID}/members":
            self._between_pages(request.query.get("status", ""))
        elif request.method == "GET" and request.path.startswith("/batches/"):
            batches, asked = self.world.default_account.batches, request.path.removeprefix("/batches/")
            if asked in batches and self.faults.loses_batch():
                del batches[asked]
        due = [do for n, do in self.interruptions if n <= 1]
        self.interruptions = [(n - 1, do) for n, do in self.interruptions if n > 1]
        for do in due:
            do()

    def _between_pages(self, listing: str) -> None:
        """Rows may move between two pages of one listing."""
        is_next, self._page_before = listing == self._page_before, listing
        if is_next and self.move_row is not None and self.faults.moves_rows():
            before = [(one.serial, one.status, one.last_changed) for one in self.audience.members]
            self.move_row(self.faults.rng)
            if before != [(one.serial, one.status, one.last_changed) for one in self.audience.members]:
                self.faults.count(Kind.DRIFT)

    # People at CiviCRM

    def unit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One unit of somebody else's on the database."""
        return self.harness.memory.unit(fn, *args, **kwargs)

    def new_contact(self, address: str) -> int:
        """Somebody adds a contact."""
        key: int = self.unit(crm.add_contact, address, self.at)
        related = self.ledger.related(address)
        others = self.unit(crm.owners, [one for one in related if isinstance(one, str)]) - {
            key
        }  # some made by the sync
        if others or any(isinstance(one, int) for one in related):
            self.ledger.ambiguous.add(address)
        self.contacts.append(key)
        self.ledger.connect(key, address)
        return key

    def change_group(self, contact_id: int, status: str, group_id: int = GROUP) -> None:
        """Somebody puts a contact into a group or takes it out."""
        if self.unit(crm.set_group, contact_id, status, self.at, group_id):
            field_ = "status" if group_id == GROUP else next(key for key, one in CHOICES.items() if one == group_id)
            self.ledger.record(contact_id, field_, "civicrm", status == "Added", self.now)

    def mark_ambiguous(self, contact_id: int, *addresses: str) -> None:
        """What was just done makes it anybody's guess whose word counts; these addresses belong to the soul, too."""
        for address in addresses:
            self.ledger.connect(contact_id, address)
        self.ledger.ambiguous.add(contact_id)

    # People at Mailchimp

    def act(self, who: str, action: str, address: str, **more: Any) -> None:
        """A person or an admin does something at Mailchimp; nothing where that is not possible."""
        do = actions.person if who == "person" else actions.admin
        with contextlib.suppress(actions.UnknownAction, Problem):
            do(self.world, action, address, LIST_ID, **more)
        self._observe(is_person=True)

    def member(self, address: str) -> Member | None:
        """A member by address."""
        return self.audience.members.find_address(address)

    def _observe(self, *, is_person: bool) -> None:
        """Write down what changed at Mailchimp, and who said so."""
        ledger, present = self.ledger, set()
        for member in self.audience.members:
            present.add(member.serial)
            before = ledger.members.get(member.serial)
            is_in = member.status in RECEIVES
            now = MemberState(member.email, is_in, member.last_changed, chosen_by(member), member.status)
            if before is None:
                self._arrived(member)
                for key in CHOICES:
                    if is_person and key not in now.chosen and ledger.last_there(now.email.lower(), key) is not False:
                        # Not chosen when first met counts as their word; where a member before them (deleted since) had
                        # not chosen it either, nothing changed, and Mailchimp dates no interest.
                        # Nor does the sync know whose member it is, where it is subscribing that address itself.
                        echoes = self.unit(crm.asks_to_be_in, now.email)
                        ledger.record(now.email.lower(), key, "mailchimp", False, self.now, echoes=echoes)
                before = MemberState(member.email, False, 0, frozenset())
            if before.email.lower() != now.email.lower():
                if not self.unit(crm.is_linked, before.email):  # nobody can know whose the new address is
                    ledger.ambiguous.add(before.email.lower())
                ledger.connect(before.email.lower(), now.email.lower())
            if before == now:
                continue
            # Who unsubscribes though they had bounced, or were archived, has said so.
            says_out = now.status == "unsubscribed" != before.status
            if is_person and (before.is_in != now.is_in or says_out):
                echoes = self.unit(crm.asks_to_be_in, now.email) if now.is_in else False
                ledger.record(now.email.lower(), "status", "mailchimp", now.is_in, self.now, echoes=echoes)
            for key in CHOICES if is_person else ():
                if (key in before.chosen) != (key in now.chosen):
                    ledger.record(now.email.lower(), key, "mailchimp", key in now.chosen, self.now)
            if not is_person and MAIL in now.chosen - before.chosen:
                self._check_permission(now.email.lower())
            self._age_events(now, before)
            ledger.members[member.serial] = now
        for serial in ledger.members.keys() - present - ledger.departed:
            gone = ledger.members[serial]
            ledger.departed.add(serial)
            ledger.record(gone.email.lower(), "deleted", "mailchimp", False, self.now)
            if gone.is_in:
                # Mailchimp does not say when: for the sync it was when a full fetch missed them, or a webhook told.
                ledger.record(gone.email.lower(), "status", "mailchimp", False, self.now, until=math.inf)
                gone.is_in = False
            else:  # they left before they were deleted; if no sync saw that, it cannot tell it from the deletion
                events = [w for w in ledger.events_of(gone.email.lower(), "status") if w.side == "mailchimp"]
                if events and not events[-1].seen:
                    events[-1].until = math.inf

    def _arrived(self, member: Member) -> None:
        """Two members of one soul at a time are more than the ledger can tell about."""
        address = member.email.lower()
        related = self.ledger.related(address)
        others = [one for one in self.audience.members if one is not member and one.email.lower() in related]
        if others:
            self.ledger.ambiguous.add(address)

    def _age_events(self, now: MemberState, before: MemberState) -> None:
        """The last word at Mailchimp looks younger, as long as the member still stands as it said."""
        stamp = now.last_changed - self.skew
        for field_, stands in (("status", now.is_in), *((key, key in now.chosen) for key in CHOICES)):
            events = [w for w in self.ledger.events_of(now.email.lower(), field_) if w.side == "mailchimp"]
            if events and not events[-1].seen and events[-1].is_in == stands:
                events[-1].until = max(events[-1].until, float(stamp))

    def _api_changed(self, request: Request, response: Response) -> None:
        """Watch what the sync does to members: nobody who left comes back without a later word from CiviCRM.

        And whatever is asked makes sense: Mailchimp may refuse it, but not because it cannot be read.
        """
        if response.status == 400 and response.body.get("errors"):
            self.violations.append(
                f"{request.method} {request.path} was sent with what nobody can read: {request.body}"
            )
        before = {serial: one.is_in for serial, one in self.ledger.members.items()}
        for member in self.audience.members:
            if member.status in RECEIVES and not before.get(member.serial, False):
                self._check_joining(member)
        self._observe(is_person=False)

    def _check_permission(self, address: str) -> None:
        """No permission is given by default: somebody gave it, or was put into the group that is linked with it."""
        if not self.has_interest or not any(event.is_in for event in self.ledger.events_of(address, MAIL)):
            self.violations.append(f"{address} was given a permission that nobody gave")

    def _check_joining(self, member: Member) -> None:
        address = member.email.lower()
        events = self.ledger.events_of(address, "status")
        about = (
            events
            if not self.ledger.related(address) & self.ledger.ambiguous
            else self.ledger.events[address, "status"]
        )
        there = [w for w in about if w.side == "mailchimp"]
        left = there if there and not there[-1].is_in else []
        joined = [w for w in events if w.side == "civicrm" and w.is_in]
        if left and left[-1].at >= int(self.world.handed_over - self.skew):
            # Mailchimp carries out what it was given before they left, which nobody can call back, and says nothing of
            # their leaving in between: so no sync can know of it.
            self.ledger.ambiguous.add(address)
            return
        if left and self.one_way:
            self.violations.append(f"{address} left at Mailchimp, and was subscribed again because of a source")
        if left and not any(event.at >= left[-1].at - self.slack for event in joined):
            self.violations.append(f"{address} left at Mailchimp and was brought back without a later word in CiviCRM")
        if not joined and not any(w.is_in for w in events):
            self.violations.append(f"{address} was subscribed though nobody ever wanted that")

    # Webhooks

    async def deliver(self, how: str) -> None:
        """Let waiting webhooks reach us: ``all``, ``twice``, ``reversed``, ``late`` (kept for later), or ``lost``."""
        waiting = self.world.due_deliveries(everything=True)
        for one in waiting:
            self.world.record_delivery(one, 200)
        if how in HOOKS and len(waiting) > (how == "reversed"):
            self.faults.count(HOOKS[how], len(waiting))
        if how == "lost":
            return
        if how == "late":
            self.held_back += waiting
            return
        waiting = [*self.held_back, *waiting]
        self.held_back = []
        if how == "reversed":
            waiting.reverse()
        for one in waiting * (2 if how == "twice" else 1):
            await self.process.service.receive_audience_webhook(forms.parse(one.body))

    # Breakages

    def add_fault(self, action: FaultAction, *, count: int, method: str = "", path: str = "", skip: int = 0) -> None:
        """The next requests (or operations of batches) that match go wrong."""
        rule = FaultRule(action, method=method, path=path, count=count, skip=skip)
        self.world.default_account.options.fault_rules.append(rule)

    def clear_faults(self) -> None:
        """Nothing goes wrong any more by what was broken on purpose."""
        self.world.default_account.options.fault_rules.clear()

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that a sync may change at our end."""
        rows = self.harness.memory.rows(*(f"SELECT * FROM {name} ORDER BY id" for name in DUMPED))
        return dict(zip(DUMPED, rows, strict=True))


def chosen_by(member: Member) -> frozenset[str]:
    """The interests that a member has chosen and the permissions it has given."""
    return member.interests | frozenset((member.extra or {}).get("marketing_permissions", ()))


DUMPED = (
    "civicrm_contact",
    "civicrm_email",
    "civicrm_group_contact",
    "civicrm_subscription_history",
    "civicrm_mailchimpsync_cache",
    "civicrm_mailchimpsync_update",
    "civicrm_mailchimpsync_batch",
)


__all__ = ["GROUP", "TREES_GROUP", "Model", "Process"]
