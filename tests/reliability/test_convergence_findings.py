"""What the convergence model found: each history that once ended wrongly, by name."""

from collections.abc import Iterator

import pytest

from tests.reliability.convergence_bench import Bench
from tests.reliability.convergence_history import History, Step, Tale
from tests.reliability.convergence_oracle import verdict
from tests.reliability.convergence_run import begin, come_to_rest, live
from tests.reliability.convergence_store import Fuse


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench().ready() as ready:
        yield ready


def happened(*steps: tuple[str, int, int, int], **more: object) -> History:
    """A history from what happened, to whom, how, and how many seconds after what was before."""
    return History(tuple(Step(*one) for one in steps), **more)  # type: ignore[arg-type]


FINDINGS = {
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
}


@pytest.mark.parametrize("history", FINDINGS.values(), ids=FINDINGS.keys())
def test_found_by_the_model(bench: Bench, history: History) -> None:
    assert live(bench, history) == []


@pytest.mark.parametrize("how", ["unsubscribe", "archive"])
def test_who_came_and_left_while_a_run_was_stopped_is_not_brought_back_when_it_goes_on(bench: Bench, how: str) -> None:
    tale = Tale(begin(bench, happened()), happened())

    async def stopped_and_continued() -> list[str]:
        await tale.sync(stop_on="readyToSubmitUpdates")
        bench.clock.advance(1000)
        tale.ends.act("person", "sign_up", "p1@example.org")
        bench.clock.advance(60)
        tale.ends.act("admin", how, "p1@example.org")
        await tale.sync()
        return await come_to_rest(tale) or verdict(tale.ends)

    assert bench.loop.run(stopped_and_continued()) == []


def test_a_contact_given_the_address_while_a_run_was_stopped_gets_the_member_and_no_second_one_is_made(
    bench: Bench,
) -> None:
    tale = Tale(begin(bench, happened()), happened())

    async def stopped_and_continued() -> list[str]:
        await tale.sync(stop_on="readyToCreateNewContactsFromMailchimp")
        tale.ends.new_contact("p2@example.org")
        await tale.sync()
        return await come_to_rest(tale) or verdict(tale.ends)

    assert bench.loop.run(stopped_and_continued()) == []


def test_who_came_back_while_their_unsubscribing_was_lost_on_its_way_is_not_put_out_when_it_is_sent_again(
    bench: Bench,
) -> None:
    tale = Tale(begin(bench, happened(begins_in_step=True)), happened())

    async def lost_and_sent_again() -> list[str]:
        bench.clock.advance(60)
        tale.ends.say_in_civicrm(1, "Removed")
        await tale.sync(stop_on="readyToSubmitUpdates")
        tale.ends.spawn(Fuse(1, only="call"))
        assert await tale.ends.until_killed(tale.sync())
        bench.clock.advance(60)
        for what in ("archive", "import"):
            tale.ends.act("admin", what, "p0@example.org", **({"status": "subscribed"} if what == "import" else {}))
            bench.clock.advance(60)
        return await come_to_rest(tale) or verdict(tale.ends)

    assert bench.loop.run(lost_and_sent_again()) == []
