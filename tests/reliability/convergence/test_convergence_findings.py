"""What the convergence model found: each history that once ended wrongly, by name."""

from collections.abc import Iterator

import pytest

from sync.audience import Privacy
from tests.reliability.convergence.civicrm import JOB
from tests.reliability.convergence.harness import NOT_INSTALLED, Harness, a_harness
from tests.reliability.convergence.history import History, HistoryRun, Step
from tests.reliability.convergence.oracle import check_agreement
from tests.reliability.convergence.run import converge, prepare_model, run_history
from tests.reliability.convergence.store import KillSwitch

pytestmark = pytest.mark.skipif(bool(NOT_INSTALLED), reason=f"not installed: {', '.join(NOT_INSTALLED)}")


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with a_harness() as ready:
        yield ready


def happened(*steps: tuple[str, int, int, int], **more: object) -> History:
    """A history from what happened, to whom, how, and how many seconds after what was before."""
    return History(tuple(Step(*one) for one in steps), **more)  # type: ignore[arg-type]


FINDINGS = {
    "Unsubscribed after a lost batch had subscribed them, by now without an address in CiviCRM: sent again, the "
    "update is refused, and they are not asked to confirm.": happened(
        *[("webhooks", 0, 0, 0), ("webhooks", 0, 0, 0), ("sync_and_settle", 0, 0, 0)],
        *[("drop_address", 1, 0, 0), ("unsubscribe", 1, 0, 0)],
        has_interest=False,
        seed=522,
        faults=2,
        ends_with_full=False,
    ),
    "Renamed at Mailchimp after a lost batch had subscribed them: sent again, the update does not bring the old name "
    "back.": happened(
        *[("sync", 0, 0, 0), ("sync_and_settle", 0, 0, 400), ("lose_batch", 0, 0, 0), ("rename", 1, 0, 0)],
        has_interest=False,
        seed=266774,
        faults=2,
    ),
    "Subscribed again by an undo at an address that is also that of a contact who has opted out: the undo is for "
    "the contact whose member it is.": happened(
        *[("leave", 2, 0, 0), ("readdress", 1, 5, 0), ("opt_out", 1, 0, 0), ("abort", 0, 0, 0), ("undo", 0, 0, 0)],
        begins_in_step=True,
        has_interest=False,
        privacy=Privacy.UNSUBSCRIBE,
    ),
    "Archived at Mailchimp after it was given their subscribing in a batch, before it carried that out: nobody can "
    "call it back, and they are in the audience.": happened(
        ("slow_batches", 0, 1, 0), ("sync", 0, 0, 0), ("sign_up", 1, 0, 60), ("archive", 1, 0, 60)
    ),
    "Unsubscribed at Mailchimp, then given another address in CiviCRM, in a source: their choice goes with them, and "
    "they are not subscribed at the new one.": happened(
        ("unsubscribe", 1, 0, 2), ("readdress", 1, 0, 2), begins_in_step=True, one_way=True
    ),
    "Given another address in CiviCRM, then archived at Mailchimp under the old one, in a source: they are not "
    "subscribed at the new one.": happened(
        ("readdress", 1, 0, 2), ("archive", 1, 0, 2), begins_in_step=True, one_way=True
    ),
    "Refused for now, and without an address when the time to send it again came: it waits no longer, and is looked at "
    "no more by every sync.": happened(
        *[("slow_batches", 3, 3, 2), ("rename", 3, 5, 400), ("choose", 1, 4, 4000), ("sync_and_settle", 0, 5, 2)],
        *[("break_writes", 2, 2, 61), ("sync_and_settle", 0, 2, 400), ("killed", 2, 0, 61), ("drop_address", 0, 4, 0)],
        *[("drop_address", 1, 1, 7), ("sign_up", 1, 5, 2), ("mend", 3, 3, 0), ("delete", 2, 3, 61)],
        ("unsubscribe", 2, 2, 61),
        skew=-37,
        has_interest=False,
        page=3,
        seed=10000000,
        faults=1,
        ends_with_full=False,
    ),
    "Named otherwise in CiviCRM after an undo took both names back: the first name is sent once, and not by every full "
    "sync because the last name is held.": happened(
        *[("undo", 1, 1, 2), ("delete", 1, 0, 400), ("describe", 0, 5, 2)],
        begins_in_step=True,
        skew=37,
        has_interest=False,
        ends_with_full=True,
    ),
    "Moved to another address at Mailchimp, unseen, before an undo: it fetches them as syncs do, and they stay in the "
    "group.": happened(*[("move", 0, 3, 1), ("undo", 1, 3, 61)], begins_in_step=True, skew=-600, has_interest=False),
    "Signed up by themselves and never in the source, then opted out in CiviCRM where nobody respects it: they stay.": (
        happened(
            ("add_contact", 2, 1, 1), ("opt_out", 2, 3, 1), begins_in_step=True, one_way=True, privacy=Privacy.KEEP
        )
    ),
    "Signed up at Mailchimp, where the group is a source: their webhook made a contact of them.": happened(
        ("sign_up", 3, 0, 1), ("webhooks", 0, 0, 7), ("webhooks", 0, 0, 7), one_way=True
    ),
    "In a source, unsubscribed because they opted out, and opted in again: they are subscribed again.": happened(
        *[("opt_out", 0, 0, 7), ("sync_and_settle", 0, 0, 61), ("opt_out", 0, 2, 61)],
        begins_in_step=True,
        one_way=True,
        privacy=Privacy.UNSUBSCRIBE,
    ),
    "In a source, archived by an undo, then out of the source and in it again: they are subscribed.": happened(
        *[("undo", 0, 1, 61), ("leave", 1, 0, 7), ("sync_and_settle", 0, 0, 61), ("join", 1, 0, 61)],
        begins_in_step=True,
        one_way=True,
    ),
    "Subscribed by a run that was taken back while the batch was under way: the row that an undo held became another, "
    "so the undo's own archiving counted as a choice at Mailchimp and took the person out of the group.": happened(
        *[("webhooks", 0, 0, 61), ("everything_at_once", 0, 2, 61), ("choose", 3, 0, 1), ("undo", 2, 4, 7)],
        *[("everything_at_once", 0, 2, 61), ("killed", 0, 1, 61), ("ambush", 0, 3, 2)],
        skew=37,
        page=2,
        seed=13513,
        faults=2,
        loses_last_webhooks=True,
    ),
    "Deleted for good between two pages, while the result of their subscribing was awaited: only another full fetch "
    "can see that, which the model has to give.": happened(
        *[("merge", 2, 0, 2), ("undo", 1, 3, 1), ("sync", 2, 4, 400), ("everything_at_once", 0, 2, 1)],
        *[("undo", 0, 1, 4000), ("killed", 0, 0, 0), ("rename", 0, 1, 4000), ("sync", 2, 3, 2), ("leave", 2, 1, 1)],
        ("undo", 1, 3, 1),
        skew=-600,
        has_interest=False,
        page=2,
        seed=1074,
        faults=2,
        loses_last_webhooks=True,
    ),
    "An update that was given up without any result had been carried out, and its person had left the group meanwhile: "
    "the member counted as a later change of Mailchimp's, and the person was put into the group again.": happened(
        *[("add_contact", 0, 0, 0), ("drop_address", 0, 0, 0), *[("add_contact", 0, 0, 0)] * 4, ("killed", 0, 3, 0)],
        *[("add_contact", 0, 0, 0), ("ambush", 0, 0, 4000), ("leave", 1, 0, 0), ("sync_and_settle", 0, 0, 0)],
        *[("add_contact", 0, 0, 0)] * 3,
        begins_in_step=False,
        has_interest=False,
        page=1000,
        seed=286780,
        faults=2,
    ),
    "A subscribing whose result was an error had been carried out all the same; its person left the group, and the "
    "batch that it was sent again in vanished: being subscribed counted as their later choice at Mailchimp.": happened(
        *[("ambush", 0, 3, 0), ("leave", 1, 0, 0), ("sync_and_settle", 0, 0, 0), ("add_contact", 0, 0, 400)],
        ("webhooks", 0, 0, 400),
        has_interest=False,
        page=2,
        seed=1,
        faults=2,
        ends_with_full=False,
    ),
    "An interest was chosen at Mailchimp while their address was changed, and other data of theirs followed that "
    "address: once all of it had arrived, nobody looked at the interest any more.": happened(
        *[("readdress", 0, 0, 0), ("choose", 0, 0, 0), ("rename", 0, 1, 0)],
        begins_in_step=True,
        one_way=True,
        page=1000,
        loses_last_webhooks=True,
    ),
    "Opted out after a first sync was killed between making their contact and putting it into the group: unsubscribed, "
    "and not put into it.": happened(
        ("killed", 1, 2, 1), ("opt_out", 2, 3, 4000), has_interest=False, privacy=Privacy.UNSUBSCRIBE, seed=147364
    ),
    "Imported at Mailchimp without a permission before a sync that had been killed subscribed them with it: the import "
    "is the later word, and they leave the group of the permission.": happened(
        ("add_contact", 3, 3, 1), ("killed", 1, 1, 2), ("permit", 3, 0, 7), ("import", 3, 5, 9), begins_in_step=True
    ),
    "Given an address of somebody else while an interest of theirs was in flight: the old address leaves the audience "
    "once it has arrived, not at the next full sync.": happened(
        *[("break_writes", 0, 0, 1), ("add_contact", 3, 0, 61), ("interest", 2, 2, 2), ("everything_at_once", 2, 1, 0)],
        *[("lose_batch", 3, 2, 7), ("lose_batch", 3, 2, 7), ("readdress", 2, 5, 2)],
        begins_in_step=True,
        seed=136,
        faults=2,
    ),
    "Merged into a contact who was written to elsewhere: the address that was given up is archived, "
    "though the merge is a new word of CiviCRM.": happened(
        ("drop_address", 1, 0, 1), ("merge", 1, 0, 2), begins_in_step=True
    ),
    "Put into an interest's group while their subscribing was under way: that Mailchimp made them without the interest "
    "is nobody's word.": happened(("slow_batches", 0, 1, 0), ("sync", 0, 0, 0), ("interest", 1, 0, 60)),
    "Subscribed by a batch whose results got lost, then taken out by an admin: the batch is not sent again for them.": (
        happened(("sync", 0, 0, 0), ("lose_batch", 0, 1, 5), ("admin_unsubscribe", 1, 0, 60), ("webhooks", 0, 4, 60))
    ),
    "Subscribed by a batch whose results got lost, then left: nobody is asked to confirm what they did not ask for.": (
        happened(("sync", 0, 0, 0), ("lose_batch", 0, 1, 5), ("unsubscribe", 1, 0, 60), ("webhooks", 0, 4, 60))
    ),
    "Deleted for good after having been out for long: that is no new word against who joined in CiviCRM since.": (
        happened(
            ("admin_unsubscribe", 2, 0, 0),
            ("sync", 0, 0, 0),
            ("delete", 2, 0, 0),
            ("join", 2, 0, 7),
            ("webhooks", 0, 0, 2),
        )
    ),
    "Moved twice at Mailchimp, told of the first move late: they have not gone, and CiviCRM's last word stands.": (
        happened(
            ("move", 0, 0, 0),
            ("sync_and_settle", 0, 0, 0),
            ("move", 0, 0, 0),
            ("leave", 0, 0, 0),
            ("open_mail", 0, 0, 61),
            ("webhooks", 0, 0, 400),
            begins_in_step=True,
        )
    ),
    "Left at Mailchimp, taken out in CiviCRM, back at Mailchimp, all between two syncs: the last word is to be in.": (
        happened(("unsubscribe", 0, 0, 10), ("leave", 0, 0, 10), ("sign_up", 0, 0, 10), begins_in_step=True)
    ),
    "Left the group while their very first subscribing was under way: that is undone at the address it went to.": (
        happened(
            ("join", 3, 0, 0),
            ("slow_batches", 0, 1, 0),
            ("sync", 0, 0, 0),
            ("leave", 3, 0, 7),
            ("sync", 0, 0, 7),
            ("slow_batches", 0, 0, 0),
            ("webhooks", 0, 0, 7),
            ("webhooks", 0, 0, 7),
        )
    ),
    "Archived at Mailchimp after having been out for long: that is no new word against who joined in CiviCRM since.": (
        happened(
            ("admin_unsubscribe", 2, 0, 0),
            ("sync", 0, 0, 7),
            ("join", 2, 0, 7),
            ("archive", 2, 0, 7),
            begins_in_step=True,
        )
    ),
    "Unsubscribed by their own hand after they had bounced: that is a word, and later than CiviCRM's.": happened(
        ("bounce", 1, 0, 0),
        ("sync_and_settle", 0, 0, 2),
        ("join", 1, 0, 0),
        ("unsubscribe", 1, 0, 1),
        begins_in_step=True,
    ),
    "Made a contact in CiviCRM while they moved to that address and chose an interest at Mailchimp: the choice is "
    "seen in the answer to our own update, and thought about.": happened(
        ("killed", 2, 0, 0),
        ("choose", 2, 0, 0),
        ("move", 2, 0, 0),
        ("join", 2, 0, 0),
        begins_in_step=True,
        loses_last_webhooks=True,
    ),
    "Left while an interest was on its way to Mailchimp: the answer tells, and they leave the group.": happened(
        ("slow_batches", 0, 1, 0),
        ("interest", 0, 0, 7),
        ("sync", 0, 0, 7),
        ("unsubscribe", 0, 0, 7),
        ("slow_batches", 0, 0, 7),
        ("webhooks", 0, 4, 7),
        begins_in_step=True,
        ends_with_full=False,
    ),
    "Their address was given up by a contact who left, and is another's by now: whoever has it meets the member there, "
    "and is not told for ever that somebody else stands for it.": happened(
        ("webhooks", 0, 0, 0),
        ("readdress", 2, 0, 1),
        ("readdress", 1, 5, 1),
        ("archive", 2, 0, 1),
        ("sync", 0, 0, 1),
        begins_in_step=False,
        has_interest=False,
        ends_with_full=False,
    ),
    "Came back and left again at Mailchimp between two syncs, put into the group in between: they stay out.": happened(
        ("unsubscribe", 0, 0, 10),
        ("sync_and_settle", 0, 0, 10),
        ("sign_up", 0, 0, 10),
        ("join", 0, 0, 10),
        ("unsubscribe", 0, 0, 10),
        begins_in_step=True,
    ),
    "Opted out, and unsubscribed for it, while their names are sent too: the row says why they get no mail.": happened(
        ("opt_out", 0, 4, 10),
        begins_in_step=False,
        has_interest=False,
        privacy=Privacy.UNSUBSCRIBE,
    ),
}


@pytest.mark.parametrize("history", FINDINGS.values(), ids=FINDINGS.keys())
def test_found_by_the_model(harness: Harness, history: History) -> None:
    assert run_history(harness, history) == []


@pytest.mark.parametrize("how", ["unsubscribe", "archive"])
def test_who_came_and_left_while_a_run_was_stopped_is_not_brought_back_when_it_goes_on(
    harness: Harness, how: str
) -> None:
    run = HistoryRun(prepare_model(harness, happened()), happened())

    async def stopped_and_continued() -> list[str]:
        await run.sync(stop_on="readyToSubmitUpdates")
        harness.clock.advance(1000)
        run.model.act("person", "sign_up", "p1@example.org")
        harness.clock.advance(60)
        run.model.act("admin", how, "p1@example.org")
        await run.sync()
        return await converge(run) or check_agreement(run.model)

    assert harness.loop.run(stopped_and_continued()) == []


def test_a_contact_given_the_address_while_a_run_was_stopped_gets_the_member_and_no_second_one_is_made(
    harness: Harness,
) -> None:
    run = HistoryRun(prepare_model(harness, happened()), happened())

    async def stopped_and_continued() -> list[str]:
        await run.sync(stop_on="readyToCreateNewContactsFromMailchimp")
        run.model.new_contact("p2@example.org")
        await run.sync()
        return await converge(run) or check_agreement(run.model)

    assert harness.loop.run(stopped_and_continued()) == []


def test_who_came_back_while_their_unsubscribing_was_lost_on_its_way_is_not_put_out_when_it_is_sent_again(
    harness: Harness,
) -> None:
    run = HistoryRun(prepare_model(harness, happened(begins_in_step=True)), happened())

    async def lost_and_sent_again() -> list[str]:
        harness.clock.advance(60)
        run.model.change_group(run.model.contacts[0], "Removed")
        await run.sync(stop_on="readyToSubmitUpdates")
        run.model.spawn(KillSwitch(1, only="call"))
        assert await run.model.until_killed(run.sync())
        harness.clock.advance(60)
        for what in ("archive", "import"):
            run.model.act("admin", what, "p0@example.org", **({"status": "subscribed"} if what == "import" else {}))
            harness.clock.advance(60)
        return await converge(run) or check_agreement(run.model)

    assert harness.loop.run(lost_and_sent_again()) == []


def test_a_merge_field_that_was_changed_at_mailchimp_while_an_update_of_it_was_in_flight_is_sent_again(
    harness: Harness,
) -> None:
    run = HistoryRun(prepare_model(harness, happened(begins_in_step=True)), happened())

    async def changed_twice() -> list[str]:
        for job in ("Theirs", "Another"):
            harness.clock.advance(60)
            run.model.act("person", "edit_profile", "p0@example.org", merge_fields={JOB: job})
            await run.sync(with_data=True)
            run.model.world.run_batches()
        return await converge(run) or check_agreement(run.model)

    assert harness.loop.run(changed_twice()) == []


def test_whoever_waits_in_vain_for_a_batch_waits_on_the_virtual_clock(harness: Harness) -> None:
    """On the real one a history would wait for real, and ask Mailchimp thousands of times."""
    run = HistoryRun(prepare_model(harness, happened()), happened())

    async def waited() -> float:
        run.model.batches_move = False
        await run.sync()
        began = harness.clock.elapsed
        assert not await run.model.process.service.wait_until_idle(seconds=30)
        return harness.clock.elapsed - began

    assert 30 <= harness.loop.run(waited()) < 31
