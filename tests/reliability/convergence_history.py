"""Histories: what is drawn, how it is acted out, and the quiet at the end.

A history is plain data, so that hypothesis can shrink it and a failure can be told in a few lines: how it begins, and a
list of steps, each with somebody, a variant, and the seconds that pass before it. A step that makes no sense where it
stands does nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import select

from civiapi.store.tables import email
from sync.mailchimp.emulator.exchange import Request
from sync.mailchimp.emulator.faults import FaultAction
from tests.contract.sites import TREES_GROUP
from tests.reliability import convergence_civicrm as crm
from tests.reliability.convergence_bench import Bench
from tests.reliability.convergence_civicrm import LIST_ID, TREES
from tests.reliability.convergence_ends import Ends
from tests.reliability.convergence_store import Fuse
from tests.reliability.convergence_weather import CALM, ROUGH, STORM, Kind

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
    page: int = 1000
    seed: int = 0
    weather: int = CALM
    ends_with_full: bool = True
    loses_last_webhooks: bool = False


@dataclass
class Tale:
    """A history as it is acted out."""

    ends: Ends
    history: History
    at_mailchimp: list[str] = field(default_factory=list)
    syncs: int = 0
    kills: int = 0
    is_deleted_unseen: bool = False
    """Somebody was deleted for good at Mailchimp, which only a full fetch can see."""
    _ambushed: int = 0

    def __post_init__(self) -> None:
        self.at_mailchimp = [address_of(who) for who in range(PEOPLE)]
        self.in_civicrm: list[int | None] = [*self.ends.contacts, *[None] * PEOPLE][:PEOPLE]
        self._fresh = 0
        self.ends.move_a_row = self._move_a_row
        if self.history.skew:
            self.ends.weather.count(Kind.SKEW)

    # Steps

    async def act_out(self) -> None:
        """All steps, one after another."""
        for step in self.history.steps:
            self.ends.bench.clock.advance(step.gap)
            do = STEPS[step.what]
            if do in _MACHINE:
                await do(self, step)
            elif self._ambushed:
                self.ends.ambush.append((self._ambushed, lambda do=do, step=step: do(self, step)))
                self._ambushed = 0
            else:
                do(self, step)

    def fresh_address(self, who: int) -> str:
        """An address that nobody had yet."""
        self._fresh += 1
        return f"p{who}.{self._fresh}@example.org"

    def _move_a_row(self, rng: Random) -> None:
        """Somebody's row at Mailchimp goes to the end, comes, or goes."""
        what = rng.choice(("open_mail", "open_mail", "sign_up", "archive", "delete", "import"))
        STEPS[what](self, Step(what, rng.randrange(PEOPLE), 0, 0))

    async def weather(self) -> None:
        """Before a sync: webhooks come as the weather has it, and its process may be one that is to die."""
        if (how := self.ends.weather.hooks()) is not None:
            await self.ends.deliver(how)
        if (fuse := self.ends.weather.fuse()) is not None:
            self.ends.spawn(fuse)

    async def in_weather(self, *work: Any) -> None:
        """Work that may be killed; a process that outlived it lives on."""
        self.kills += await self.ends.until_killed(*work)
        self.ends.process.fuse.left = None

    async def sync(self, **request: Any) -> bool:
        """One run of the present process; True when it went from a fetch of its own through to the end."""
        began, at = self.ends.now, self.ends.at
        self.syncs += 1
        done = await self.ends.process.service.fetch_and_reconcile(**request)
        log = done[0]["status"]["log"] if done else []
        is_done = len(log) > 1 and log[0]["time"] >= at and log[-1]["message"].startswith("Sent")
        if is_done:
            self.ends.ledger.seen(began - 1)
            if request.get("since") == "ever":
                self.is_deleted_unseen = False
                self.ends.ledger.missed(self.ends.now)
        return is_done


# ── People ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _add_contact(tale: Tale, step: Step) -> None:
    """A contact for somebody who has none; or a second one with the same address."""
    ends = tale.ends
    address = tale.at_mailchimp[step.who]
    if _adopt(tale, step) is not None and step.how < 4:
        return
    tale.in_civicrm[step.who] = ends.new_contact(address)
    if step.how != 1:
        ends.say_in_civicrm(tale.in_civicrm[step.who] or 0, "Added")


def _adopt(tale: Tale, step: Step) -> int | None:
    """The contact of somebody: the one we made, or one that the sync made for them."""
    if tale.in_civicrm[step.who] is None:
        found = tale.ends.unit(_owner, tale.at_mailchimp[step.who])
        if found is not None:
            tale.in_civicrm[step.who] = found
            tale.ends.ledger.connect(found, tale.at_mailchimp[step.who])
    return tale.in_civicrm[step.who]


def _owner(conn: Any, address: str) -> int | None:
    found: int | None = conn.execute(select(email.c.contact_id).where(email.c.email == address)).scalar()
    return found


def _join(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is not None:
        tale.ends.say_in_civicrm(contact_id, "Added")
    else:
        _add_contact(tale, Step("add_contact", step.who, 0, 0))


def _leave(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is not None:
        tale.ends.say_in_civicrm(contact_id, "Deleted" if step.how == 5 else "Removed")


def _interest(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is not None:
        tale.ends.say_in_civicrm(contact_id, "Removed" if step.how % 2 else "Added", TREES_GROUP)


def _hold(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is not None:
        tale.ends.unit(crm.hold, contact_id, step.how % 2 == 0, tale.ends.at)


def _readdress(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is None:
        return
    taken = tale.at_mailchimp[(step.who + 1) % PEOPLE]
    new = taken if step.how == 5 else tale.fresh_address(step.who)
    tale.ends.unit(crm.readdress, contact_id, new, tale.ends.at)
    is_linked = tale.ends.unit(crm.is_linked, tale.at_mailchimp[step.who])
    tale.ends.ledger.connect(contact_id, new)
    if step.how == 5 or not is_linked:  # nobody can know whose the old address was
        tale.ends.tangle(contact_id)
    if step.how != 5 and tale.ends.member(tale.at_mailchimp[step.who]) is None:
        tale.at_mailchimp[step.who] = new


def _add_address(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is None:
        return
    new = tale.at_mailchimp[(step.who + 1) % PEOPLE] if step.how == 5 else tale.fresh_address(step.who)
    tale.ends.unit(crm.add_address, contact_id, new, tale.ends.at)
    tale.ends.tangle(contact_id, new)


def _drop_address(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is not None:
        tale.ends.unit(crm.drop_address, contact_id, tale.ends.at)
        tale.ends.tangle(contact_id)


def _trash(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is not None:
        tale.ends.unit(crm.trash, contact_id, step.how % 3 != 2, tale.ends.at)
        tale.ends.tangle(contact_id)


def _merge(tale: Tale, step: Step) -> None:
    other = (step.who + 1 + step.how % 2) % PEOPLE
    keeper, loser = _adopt(tale, step), _adopt(tale, Step("", other, 0, 0))
    if keeper is None or loser is None or keeper == loser:
        return
    tale.ends.unit(crm.merge, keeper, loser, tale.ends.at)
    tale.ends.ledger.connect(keeper, loser)
    tale.ends.tangle(keeper)
    if tale.ends.unit(crm.standing, keeper) == "Added":  # whoever merged them saw that, and left it
        tale.ends.ledger.say(keeper, "status", "civicrm", True, tale.ends.now)
    tale.in_civicrm[other] = keeper


def _opt_out(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is not None:
        tale.ends.unit(crm.opt_out, contact_id, step.how % 3 != 2, tale.ends.at)


def _tag(tale: Tale, step: Step) -> None:
    if (contact_id := _adopt(tale, step)) is not None:
        tale.ends.unit(crm.set_tag, contact_id, step.how % 2 == 0)


def _at_mailchimp(who: str, action: str, **more: Any) -> Callable[[Tale, Step], None]:
    def do(tale: Tale, step: Step) -> None:
        tale.ends.act(who, action, tale.at_mailchimp[step.who], **more)

    return do


def _choose(tale: Tale, step: Step) -> None:
    tale.ends.act("person", "edit_profile", tale.at_mailchimp[step.who], interests={TREES: step.how % 2 == 0})


def _rename(tale: Tale, step: Step) -> None:
    names = {"FNAME": f"Name{step.how}", "LNAME": "Lovelace"}
    tale.ends.act("person", "edit_profile", tale.at_mailchimp[step.who], merge_fields=names)


def _move(tale: Tale, step: Step) -> None:
    old = tale.at_mailchimp[step.who]
    new = tale.at_mailchimp[(step.who + 1) % PEOPLE] if step.how == 5 else tale.fresh_address(step.who)
    if tale.ends.member(old) is None or tale.ends.member(new) is not None:
        return
    if step.how == 5:
        tale.ends.ledger.tangled |= {old, new}
    tale.ends.act("person", "change_email", old, new_email=new)
    if tale.ends.member(new) is not None:
        tale.at_mailchimp[step.who] = new


def _delete(tale: Tale, step: Step) -> None:
    if tale.ends.member(tale.at_mailchimp[step.who]) is not None:
        tale.is_deleted_unseen = True
    tale.ends.act("admin", "delete_permanently", tale.at_mailchimp[step.who])


# ── The machine ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(step: Step) -> dict[str, Any]:
    return {"since": "ever" if step.how % 3 == 2 else None, "with_data": step.how >= 4}


async def _sync(tale: Tale, step: Step) -> None:
    await tale.weather()
    await tale.in_weather(tale.sync(**_request(step)))


async def _sync_and_settle(tale: Tale, step: Step) -> None:
    await tale.weather()
    await _both(tale, step)


async def _both(tale: Tale, step: Step) -> None:
    async def both() -> None:
        await tale.sync(**_request(step))
        await tale.ends.process.service.settle(seconds=30)

    await tale.in_weather(both())


async def _everything_at_once(tale: Tale, step: Step) -> None:
    await tale.ends.deliver("twice" if step.how % 2 else "all")
    await tale.weather()
    service = tale.ends.process.service
    await tale.in_weather(tale.sync(**_request(step)), service.settle(seconds=20))


async def _killed(tale: Tale, step: Step) -> None:
    """A sync in a process that dies after a while, at a commit or a remote call."""
    tale.ends.spawn(Fuse(1 + step.how * 7 + step.who * 2, after=step.how % 2 == 0))
    await _both(tale, Step("sync", 0, step.gap % 6, 0))


async def _webhooks(tale: Tale, step: Step) -> None:
    await tale.ends.deliver(("all", "twice", "reversed", "late", "lost", "all")[step.how])
    await tale.in_weather(tale.ends.process.service.settle(seconds=5))


async def _keep_webhooks(tale: Tale, step: Step) -> None:
    await tale.ends.deliver(("lost", "late")[step.how % 2])


async def _slow_batches(tale: Tale, step: Step) -> None:
    tale.ends.batches_move = step.how % 2 == 0


async def _lose_batch(tale: Tale, step: Step) -> None:
    """Another program deletes our batch; or it was carried out, and its results have expired."""
    batches = tale.ends.world.default_account.batches
    if step.how % 2:
        tale.ends.world.run_batches()
    if batches:
        tale.ends.weather.count(Kind.BATCH_GONE)
        del batches[sorted(batches)[step.who % len(batches)]]


async def _foreign_batch(tale: Tale, step: Step) -> None:
    """Another program hands Mailchimp a batch as large as ours are."""
    account = tale.ends.world.default_account
    operations = [{"method": "GET", "path": "/lists", "operation_id": f"other-{i}"} for i in range(1 + step.how % 2)]
    tale.ends.world.handle(Request("POST", "/batches", {}, {"operations": operations}, account))


async def _break(tale: Tale, step: Step) -> None:
    action = FAULTS[(step.who * 6 + step.how) % len(FAULTS)]
    path = ("", "/batches", "/members", "/members/", "^/batches$", "")[step.how]
    tale.ends.break_line(action, count=1 + (step.gap % 7), path=path, skip=step.who)


async def _break_writes(tale: Tale, step: Step) -> None:
    action = FAULTS[(step.who * 6 + step.how) % len(FAULTS)]
    tale.ends.break_line(action, count=1 + step.who, method=("PUT", "POST", "PUT", "PATCH", "POST", "DELETE")[step.how])


async def _mend(tale: Tale, step: Step) -> None:
    tale.ends.mend_line()


async def _ambush(tale: Tale, step: Step) -> None:
    """What the next person does is done in the middle of the next sync."""
    tale._ambushed = 1 + step.how + 6 * (step.who % 2)


async def _abort(tale: Tale, step: Step) -> None:
    service = tale.ends.process.service
    await tale.in_weather(service.abort(12) if step.how % 2 else tale.sync(force_restart=True))


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
    _break,
    _break_writes,
    _mend,
    _ambush,
    _abort,
}

STEPS: dict[str, Any] = {
    "add_contact": _add_contact,
    "join": _join,
    "leave": _leave,
    "interest": _interest,
    "hold": _hold,
    "readdress": _readdress,
    "add_address": _add_address,
    "drop_address": _drop_address,
    "trash": _trash,
    "merge": _merge,
    "opt_out": _opt_out,
    "tag": _tag,
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
    "break": _break,
    "break_writes": _break_writes,
    "mend": _mend,
    "ambush": _ambush,
    "abort": _abort,
}

OFTEN = (
    *("join", "leave", "sign_up", "unsubscribe") * 2,
    *("ambush", "webhooks", "interest", "choose", "break", "break_writes") * 2,
    *("sync_and_settle", "killed") * 4,
    *("everything_at_once", "lose_batch") * 2,
)

step_strategy = st.builds(
    Step,
    what=st.sampled_from((*STEPS, *OFTEN)),
    who=st.integers(0, PEOPLE - 1),
    how=st.integers(0, 5),
    gap=st.sampled_from(GAPS),
)

history_strategy = st.builds(
    History,
    steps=st.lists(step_strategy, min_size=4, max_size=14).map(tuple),
    begins_in_step=st.booleans(),
    skew=st.sampled_from(SKEWS),
    has_interest=st.booleans(),
    page=st.sampled_from((1000, 2, 2, 3)),
    seed=st.integers(0, 2**32 - 1),
    weather=st.sampled_from((CALM, ROUGH, STORM, STORM)),
    ends_with_full=st.booleans(),
    loses_last_webhooks=st.booleans(),
)


def first_people(ends: Ends) -> None:
    """One is on both sides, one only in the group, one only at Mailchimp, one not yet anywhere."""
    for who in (0, 1):
        ends.say_in_civicrm(ends.new_contact(address_of(who)), "Added")
    for who in (0, 2):
        ends.act("person", "sign_up", address_of(who))


def address_of(who: int) -> str:
    """Where somebody is written to at first."""
    return f"p{who}@example.org"


__all__ = ["LIST_ID", "Bench", "History", "Step", "Tale", "first_people", "history_strategy"]
