"""Histories: how they are drawn and executed.

A history is plain data, so that hypothesis can shrink it and a failure can be printed: how it begins, and a list of
steps, each with a person, a variant, and the seconds that pass before it. A step that is impossible has no effect.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import select

from civiapi.store.schema.tables import contact, email
from sync.audience import Privacy
from sync.emulator.model.faults import FaultAction
from sync.emulator.protocol.exchange import Request
from tests.reliability.convergence import civicrm as crm
from tests.reliability.convergence.civicrm import MAIL, MAIL_GROUP, TREES
from tests.reliability.convergence.faults import RATE_HIGH, RATE_LOW, RATE_NONE, Kind
from tests.reliability.convergence.model import Model
from tests.reliability.convergence.store import KillSwitch
from tests.reliability.convergence.undone import latest_run, trashed_by_undos
from tests.support.linked_site import TREES_GROUP

PEOPLE = 4
GAPS = (0, 1, 2, 7, 61, 400, 4000)
SKEWS = (0, 0, 0, 37, -37, 600, -600, 3)
FAULTS = (
    FaultAction.TOO_MANY_JSON,
    FaultAction.SERVER_ERROR,
    FaultAction.RESET_BEFORE,
    FaultAction.RESET_AFTER,
    FaultAction.OK_HTML,
    FaultAction.BAD_GATEWAY,
    FaultAction.HANG,
    FaultAction.TRUNCATED_JSON,
    FaultAction.TOO_MANY_BARE,
    FaultAction.BLOCK_PAGE,
)


@dataclass(frozen=True)
class Step:
    """One thing that happens: *who* of the people, *how* of its variants, *gap* seconds after the step before."""

    what: str
    who: int
    how: int
    gap: int


@dataclass(frozen=True)
class History:
    """How a history begins, what happens, and how it ends."""

    steps: tuple[Step, ...]
    begins_in_step: bool = False
    skew: int = 0
    has_interest: bool = True
    one_way: bool = False
    privacy: Privacy = Privacy.KEEP
    page: int = 1000
    seed: int = 0
    faults: int = RATE_NONE
    ends_with_full: bool = True
    loses_last_webhooks: bool = False


@dataclass
class HistoryRun:
    """A history being executed."""

    model: Model
    history: History
    at_mailchimp: list[str] = field(default_factory=list)
    syncs: int = 0
    kills: int = 0
    is_deleted_unseen: bool = False
    """A member was deleted permanently at Mailchimp, which only a full fetch can see."""
    has_deletion: bool = False
    """Whether a member was ever deleted permanently, by a step or between two pages."""
    _interrupt_at: int = 0

    def __post_init__(self) -> None:
        self.at_mailchimp = [address_of(who) for who in range(PEOPLE)]
        self.in_civicrm: list[int | None] = [*self.model.contacts, *[None] * PEOPLE][:PEOPLE]
        self._fresh = 0
        self.model.move_row = self._move_row
        if self.history.skew:
            self.model.faults.count(Kind.SKEW)

    # Steps

    async def execute(self, after_step: Callable[[Step], None] = lambda _: None) -> None:
        """All steps, one after another."""
        for step in self.history.steps:
            self.model.harness.clock.advance(step.gap)
            do = STEPS[step.what]
            if do in _MACHINE:
                await do(self, step)
            elif self._interrupt_at:
                self.model.interruptions.append((self._interrupt_at, lambda do=do, step=step: do(self, step)))
                self._interrupt_at = 0
            else:
                do(self, step)
            after_step(step)

    def fresh_address(self, who: int) -> str:
        """An address that nobody had yet."""
        self._fresh += 1
        return f"p{who}.{self._fresh}@example.org"

    def _move_row(self, rng: Random) -> None:
        """A person's row at Mailchimp moves to the end of the list, appears or disappears."""
        what = rng.choice(("open_mail", "open_mail", "sign_up", "archive", "delete", "import"))
        STEPS[what](self, Step(what, rng.randrange(PEOPLE), 0, 0))

    async def prepare_faults(self) -> None:
        """Before a sync: deliver webhooks as the fault plan says, and possibly start a process that will be killed."""
        if (how := self.model.faults.webhook_delivery()) is not None:
            await self.model.deliver(how)
        if (kill_switch := self.model.faults.kill_switch()) is not None:
            self.model.spawn(kill_switch)

    async def with_faults(self, *work: Any) -> None:
        """Do work during which the process may be killed; a process that survives continues."""
        self.kills += await self.model.until_killed(*work)
        self.model.process.kill_switch.left = None

    async def sync(self, **request: Any) -> bool:
        """One run of the present process; True when it fetched and reached the end."""
        began, at = self.model.now, self.model.at
        self.syncs += 1
        if self.model.one_way:
            self.model.unit(crm.compute_smart, at)
        done = await self.model.process.service.fetch_and_reconcile(**request)
        log = done[0]["status"]["log"] if done else []
        is_done = len(log) > 1 and log[0]["time"] >= at and log[-1]["message"].startswith("Sent")
        if is_done:
            self.model.ledger.seen(began - 1)
            self.model.ledger.reads.append(began)
            if request.get("since") == "ever":
                self.is_deleted_unseen = False
                self.model.ledger.missed(self.model.now)
        return is_done


# ── People ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _add_contact(run: HistoryRun, step: Step) -> None:
    """A contact for somebody who has none; or a second one with the same address."""
    model = run.model
    address = run.at_mailchimp[step.who]
    if _adopt(run, step) is not None and step.how < 4:
        return
    run.in_civicrm[step.who] = model.new_contact(address)
    if step.how != 1:
        model.change_group(run.in_civicrm[step.who] or 0, "Added")


def _adopt(run: HistoryRun, step: Step) -> int | None:
    """The contact of somebody: the one we made, or one that the sync made for them."""
    if run.in_civicrm[step.who] is None:
        found = run.model.unit(_owner, run.at_mailchimp[step.who])
        if found is not None:
            run.in_civicrm[step.who] = found
            run.model.ledger.connect(found, run.at_mailchimp[step.who])
    return run.in_civicrm[step.who]


def _owner(conn: Any, address: str) -> int | None:
    """The contact with an address; of several the one that is not in the trash."""
    owned = select(email.c.contact_id).join(contact, contact.c.id == email.c.contact_id)
    wanted = owned.where(email.c.email == address).order_by(contact.c.is_deleted, contact.c.id)
    found: int | None = conn.execute(wanted.limit(1)).scalar()
    return found if found not in trashed_by_undos(conn) else None


def _join(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.change_group(contact_id, "Added")
    else:
        _add_contact(run, Step("add_contact", step.who, 0, 0))


def _leave(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.change_group(contact_id, "Deleted" if step.how == 5 else "Removed")


def _interest(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.change_group(contact_id, "Removed" if step.how % 2 else "Added", TREES_GROUP)


def _permit(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.change_group(contact_id, "Removed" if step.how % 2 else "Added", MAIL_GROUP)


def _hold(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.unit(crm.hold, contact_id, step.how % 2 == 0, run.model.at)


def _readdress(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is None:
        return
    taken = run.at_mailchimp[(step.who + 1) % PEOPLE]
    new = taken if step.how == 5 else run.fresh_address(step.who)
    run.model.unit(crm.readdress, contact_id, new, run.model.at)
    is_linked = run.model.unit(crm.is_linked, run.at_mailchimp[step.who])
    run.model.ledger.connect(contact_id, new)
    # Nobody can know whose the old address was; or that they came back with it before they gave it up: the sync has not
    # seen that, and makes another contact of the address.
    events = run.model.ledger.events_of(contact_id, "status")
    came_back = any(one.side == "mailchimp" and one.is_in and not one.seen for one in events)
    if step.how == 5 or not is_linked or came_back:
        run.model.mark_ambiguous(contact_id)
    if step.how != 5 and run.model.member(run.at_mailchimp[step.who]) is None:
        run.at_mailchimp[step.who] = new


def _add_address(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is None:
        return
    new = run.at_mailchimp[(step.who + 1) % PEOPLE] if step.how == 5 else run.fresh_address(step.who)
    run.model.unit(crm.add_address, contact_id, new, run.model.at)
    run.model.mark_ambiguous(contact_id, new)


def _drop_address(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.unit(crm.drop_address, contact_id, run.model.at)
        run.model.mark_ambiguous(contact_id)


def _trash(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.unit(crm.trash, contact_id, step.how % 3 != 2, run.model.at)
        run.model.mark_ambiguous(contact_id)


def _merge(run: HistoryRun, step: Step) -> None:
    other = (step.who + 1 + step.how % 2) % PEOPLE
    keeper, loser = _adopt(run, step), _adopt(run, Step("", other, 0, 0))
    if keeper is None or loser is None or keeper == loser:
        return
    run.model.unit(crm.merge, keeper, loser, run.model.at)
    run.model.ledger.connect(keeper, loser)
    run.model.mark_ambiguous(keeper)
    if run.model.unit(crm.standing, keeper) == "Added":  # whoever merged them saw that, and left it
        run.model.ledger.record(keeper, "status", "civicrm", True, run.model.now)
    run.in_civicrm[other] = keeper


def _opt_out(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.unit(crm.opt_out, contact_id, step.how % 3 != 2, run.model.at)
        run.model.ledger.record(contact_id, "opted_out", "civicrm", step.how % 3 != 2, run.model.now)


def _tag(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        run.model.unit(crm.set_tag, contact_id, step.how % 2 == 0)


def _describe(run: HistoryRun, step: Step) -> None:
    if (contact_id := _adopt(run, step)) is not None:
        job = f"Job{step.how % 3}" if step.how % 3 else ""
        run.model.unit(crm.describe, contact_id, f"Civi{step.how}", job, run.model.at)


def _at_mailchimp(who: str, action: str, **more: Any) -> Callable[[HistoryRun, Step], None]:
    def do(run: HistoryRun, step: Step) -> None:
        run.model.act(who, action, run.at_mailchimp[step.who], **more)

    return do


def _choose(run: HistoryRun, step: Step) -> None:
    run.model.act("person", "edit_profile", run.at_mailchimp[step.who], interests={TREES: step.how % 2 == 0})


def _consent(run: HistoryRun, step: Step) -> None:
    named = [{"marketing_permission_id": MAIL, "enabled": step.how % 2 == 0}]
    run.model.act("person", "edit_profile", run.at_mailchimp[step.who], marketing_permissions=named)


def _rename(run: HistoryRun, step: Step) -> None:
    names = {"FNAME": f"Name{step.how}", "LNAME": "Lovelace"} | ({crm.JOB: "Theirs"} if step.how % 2 else {})
    run.model.act("person", "edit_profile", run.at_mailchimp[step.who], merge_fields=names)


def _move(run: HistoryRun, step: Step) -> None:
    old = run.at_mailchimp[step.who]
    new = run.at_mailchimp[(step.who + 1) % PEOPLE] if step.how == 5 else run.fresh_address(step.who)
    if run.model.member(old) is None or run.model.member(new) is not None:
        return
    if step.how == 5:
        run.model.ledger.ambiguous |= {old, new}
    run.model.act("person", "change_email", old, new_email=new)
    if run.model.member(new) is not None:
        run.at_mailchimp[step.who] = new


def _delete(run: HistoryRun, step: Step) -> None:
    if run.model.member(run.at_mailchimp[step.who]) is not None:
        run.is_deleted_unseen = run.has_deletion = True
    run.model.act("admin", "delete_permanently", run.at_mailchimp[step.who])


# ── The machine ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(step: Step) -> dict[str, Any]:
    return {"since": "ever" if step.how % 3 == 2 else None, "with_data": step.how >= 4}


async def _sync(run: HistoryRun, step: Step) -> None:
    await run.prepare_faults()
    await run.with_faults(run.sync(**_request(step)))


async def _sync_and_settle(run: HistoryRun, step: Step) -> None:
    await run.prepare_faults()
    await _run_twice(run, step)


async def _run_twice(run: HistoryRun, step: Step) -> None:
    async def both() -> None:
        await run.sync(**_request(step))
        await run.model.process.service.wait_until_idle(seconds=30)

    await run.with_faults(both())


async def _everything_at_once(run: HistoryRun, step: Step) -> None:
    await run.model.deliver("twice" if step.how % 2 else "all")
    await run.prepare_faults()
    service = run.model.process.service
    await run.with_faults(run.sync(**_request(step)), service.wait_until_idle(seconds=20))


async def _killed(run: HistoryRun, step: Step) -> None:
    """A sync in a process that is killed at a commit or a remote call."""
    run.model.spawn(KillSwitch(1 + step.how * 7 + step.who * 2, after=step.how % 2 == 0))
    await _run_twice(run, Step("sync", 0, step.gap % 6, 0))


async def _webhooks(run: HistoryRun, step: Step) -> None:
    await run.model.deliver(("all", "twice", "reversed", "late", "lost", "all")[step.how])
    await run.with_faults(run.model.process.service.wait_until_idle(seconds=5))


async def _keep_webhooks(run: HistoryRun, step: Step) -> None:
    await run.model.deliver(("lost", "late")[step.how % 2])


async def _slow_batches(run: HistoryRun, step: Step) -> None:
    run.model.batches_move = step.how % 2 == 0


async def _lose_batch(run: HistoryRun, step: Step) -> None:
    """Another program deletes our batch; or it was carried out, and its results have expired."""
    batches = run.model.world.default_account.batches
    if step.how % 2:
        run.model.world.run_batches()
    if batches:
        run.model.faults.count(Kind.BATCH_GONE)
        del batches[sorted(batches)[step.who % len(batches)]]


async def _foreign_batch(run: HistoryRun, step: Step) -> None:
    """Another program hands Mailchimp a batch as large as ours are."""
    account = run.model.world.default_account
    operations = [{"method": "GET", "path": "/lists", "operation_id": f"other-{i}"} for i in range(1 + step.how % 2)]
    run.model.world.handle(Request("POST", "/batches", {}, {"operations": operations}, account))


async def _add_fault(run: HistoryRun, step: Step) -> None:
    action = FAULTS[(step.who * 6 + step.how) % len(FAULTS)]
    path = ("", "/batches", "/members", "/members/", "^/batches$", "")[step.how]
    run.model.add_fault(action, count=1 + (step.gap % 7), path=path, skip=step.who)


async def _add_write_fault(run: HistoryRun, step: Step) -> None:
    action = FAULTS[(step.who * 6 + step.how) % len(FAULTS)]
    run.model.add_fault(action, count=1 + step.who, method=("PUT", "POST", "PUT", "PATCH", "POST", "DELETE")[step.how])


async def _clear_faults(run: HistoryRun, step: Step) -> None:
    run.model.clear_faults()


async def _interrupt(run: HistoryRun, step: Step) -> None:
    """The next person's action happens during the next sync."""
    run._interrupt_at = 1 + step.how + 6 * (step.who % 2)


async def _abort(run: HistoryRun, step: Step) -> None:
    service = run.model.process.service
    await run.with_faults(service.abort(12) if step.how % 2 else run.sync(force_restart=True))


async def _undo(run: HistoryRun, step: Step) -> None:
    """The latest finished run is taken back; an undo that was killed goes on where it was, unless a sync came first."""
    run_id = run.model.unit(latest_run)
    if run_id is None:
        return
    await run.prepare_faults()
    if run.model.one_way:
        run.model.unit(crm.compute_smart, run.model.at)
    service = run.model.process.service

    async def undone() -> None:
        await service.undo_run(run_id)
        await service.wait_until_idle(seconds=(0, 30)[step.how % 2])

    await run.with_faults(undone())
    trashed = run.model.unit(trashed_by_undos)
    run.in_civicrm = [None if one in trashed else one for one in run.in_civicrm]


_MACHINE: set[Any] = {
    _sync,
    _sync_and_settle,
    _everything_at_once,
    _killed,
    _webhooks,
    _keep_webhooks,
    _slow_batches,
    _lose_batch,
    _foreign_batch,
    _add_fault,
    _add_write_fault,
    _clear_faults,
    _interrupt,
    _abort,
    _undo,
}

STEPS: dict[str, Any] = {
    "add_contact": _add_contact,
    "join": _join,
    "leave": _leave,
    "interest": _interest,
    "permit": _permit,
    "hold": _hold,
    "readdress": _readdress,
    "add_address": _add_address,
    "drop_address": _drop_address,
    "trash": _trash,
    "merge": _merge,
    "opt_out": _opt_out,
    "tag": _tag,
    "describe": _describe,
    "sign_up": _at_mailchimp("person", "sign_up"),
    "unsubscribe": _at_mailchimp("person", "unsubscribe"),
    "complain": _at_mailchimp("person", "complain"),
    "confirm": _at_mailchimp("person", "confirm"),
    "bounce": _at_mailchimp("person", "hard_bounce"),
    "open_mail": _at_mailchimp("person", "open_mail_elsewhere"),
    "archive": _at_mailchimp("admin", "archive"),
    "admin_unsubscribe": _at_mailchimp("admin", "unsubscribe"),
    "import": _at_mailchimp("admin", "import", status="subscribed"),
    "choose": _choose,
    "consent": _consent,
    "rename": _rename,
    "move": _move,
    "delete": _delete,
    "sync": _sync,
    "sync_and_settle": _sync_and_settle,
    "everything_at_once": _everything_at_once,
    "killed": _killed,
    "webhooks": _webhooks,
    "keep_webhooks": _keep_webhooks,
    "slow_batches": _slow_batches,
    "lose_batch": _lose_batch,
    "foreign_batch": _foreign_batch,
    "break": _add_fault,
    "break_writes": _add_write_fault,
    "mend": _clear_faults,
    "ambush": _interrupt,
    "abort": _abort,
    "undo": _undo,
}

OFTEN = (
    *("join", "leave", "sign_up", "unsubscribe") * 2,
    *("ambush", "webhooks", "interest", "choose", "permit", "consent", "describe", "rename", "break", "break_writes")
    * 2,
    *("sync_and_settle", "killed") * 4,
    *("everything_at_once", "lose_batch", "undo") * 2,
)


def histories() -> st.SearchStrategy[History]:
    """Random histories."""
    steps = st.builds(
        Step,
        what=st.sampled_from((*STEPS, *OFTEN)),
        who=st.integers(0, PEOPLE - 1),
        how=st.integers(0, 5),
        gap=st.sampled_from(GAPS),
    )
    return st.builds(
        History,
        steps=st.lists(steps, min_size=4, max_size=14).map(tuple),
        begins_in_step=st.booleans(),
        skew=st.sampled_from(SKEWS),
        has_interest=st.booleans(),
        one_way=st.sampled_from((False, False, False, True)),
        privacy=st.sampled_from((Privacy.KEEP, Privacy.UNSUBSCRIBE)),
        page=st.sampled_from((1000, 2, 2, 3)),
        seed=st.integers(0, 2**32 - 1),
        faults=st.sampled_from((RATE_NONE, RATE_LOW, RATE_HIGH, RATE_HIGH)),
        ends_with_full=st.booleans(),
        loses_last_webhooks=st.booleans(),
    )


def first_people(model: Model) -> None:
    """One is on both sides, one only in the group, one only at Mailchimp, one not yet anywhere."""
    for who in (0, 1):
        model.change_group(model.new_contact(address_of(who)), "Added")
    for who in (0, 2):
        model.act("person", "sign_up", address_of(who))


def address_of(who: int) -> str:
    """A person's first address."""
    return f"p{who}@example.org"
