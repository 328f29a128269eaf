"""Snapshots, seeds, generated members, the clock, options and fault rules."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest

from sync.emulator.data.generate import generate
from sync.emulator.data.seeding import BadRecord, Seeder, restore, snapshot
from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import Clock, from_text, to_wire
from sync.emulator.model.faults import FaultRule
from sync.emulator.model.options import AccountOptions
from sync.emulator.protocol.exchange import Request
from sync.emulator.rules import actions
from sync.emulator.world import World
from tests.emulator.mailchimp import ADA, LIST, NOON, Mailchimp, member_path, operations, submit, with_interests


def test_a_snapshot_restores_everything_and_a_bad_one_changes_nothing(mailchimp: Mailchimp) -> None:
    with_interests(mailchimp)
    mailchimp.hook()
    mailchimp.put("gone@example.org")
    made = mailchimp.put(ADA, interests={"trees": True}, merge_fields={"FNAME": "Ada"}).body
    mailchimp.ask("POST", member_path("gone@example.org") + "/actions/delete-permanent")
    actions.person(mailchimp.world, "unsubscribe", ADA)
    mailchimp.ask("POST", member_path(ADA) + "/tags", {"tags": [{"name": "T", "status": "active"}]})
    batch = submit(mailchimp, operations("b@example.org"))
    mailchimp.world.configure({"since_inclusive": True, "fault_rules": [{"action": "500", "count": 0}]})
    added = orjson.loads(orjson.dumps(snapshot(mailchimp.world)))
    other = World()
    restore(other, added)
    assert snapshot(other) == added
    answer = other.handle(Request("GET", member_path(made["contact_id"]), account=other.default_account))
    assert other.find_audience(LIST)[1].members.find(made["contact_id"]) is not None
    assert answer.status == 404
    other.run_batches()
    assert other.default_account.batches[batch].status == "finished"
    with pytest.raises(BadRecord):
        restore(mailchimp.world, {**added, "records": [*added["records"], {"kind": "member"}]})
    assert snapshot(mailchimp.world) == added


BAD_RECORDS = [
    {},
    {"kind": "member"},
    {"kind": "member", "email_address": "x"},
    {"kind": "tag", "id": 1},
    {"kind": "clock"},
    *(
        {"kind": "audience", "marketing_permissions": odd}
        for odd in (True, "false", 7, {"a": 1}, [None], ["a"], [{}], [{"marketing_permission_id": 7}])
    ),
]


@pytest.mark.parametrize("record", BAD_RECORDS, ids=str)
def test_bad_records_are_named_and_change_nothing(mailchimp: Mailchimp, record: dict[str, Any]) -> None:
    before = snapshot(mailchimp.world)
    with pytest.raises(BadRecord):
        Seeder(mailchimp.world).add(record)
    assert snapshot(mailchimp.world) == before


@pytest.mark.parametrize("none", [False, None, []])
def test_an_audience_without_marketing_permissions_may_say_so_as_mailchimp_does(
    mailchimp: Mailchimp, none: Any
) -> None:
    Seeder(mailchimp.world).add({"kind": "audience", "id": "b1b2c3d4e5", "marketing_permissions": none})
    path = f"/lists/b1b2c3d4e5/members/{ADA}"
    assert mailchimp.ask("PUT", path, {"email_address": ADA, "status_if_new": "subscribed"}).status == 200
    assert mailchimp.ask("GET", "/lists/b1b2c3d4e5").body["marketing_permissions"] is False


def test_the_generator_gives_the_shares_asked_for_and_the_same_for_a_seed(mailchimp: Mailchimp) -> None:
    def made() -> EmulatedAudience:
        audience = World(clock=Clock.frozen_at(NOON)).add_audience(list_id=LIST)
        generate(audience, 3000, now=int(NOON.timestamp()), seed=3)
        return audience

    audience = made()
    assert [(row.email, row.status) for row in audience.members] == [(row.email, row.status) for row in made().members]
    for status, share in (("unsubscribed", 0.15), ("cleaned", 0.03), ("archived", 0.025)):
        assert audience.members.counts[status] / 3000 == pytest.approx(share, abs=0.015)
    assert any(not row.merges for row in audience.members)
    assert any(not row.email.isascii() for row in audience.members)
    assert any(row.email != row.email.lower() for row in audience.members)


def test_the_clock_can_be_set_frozen_advanced_hurried_and_skewed() -> None:
    real = [1000.0]
    clock = Clock(lambda: real[0])
    real[0] += 5
    assert clock.now() == 1005
    clock.run_at(10)
    real[0] += 1
    assert clock.now() == 1015
    clock.freeze()
    real[0] += 100
    assert clock.now() == 1015
    clock.advance(0.5)
    clock.skew = -3
    assert (clock.now(), clock.seconds()) == (1012.5, 1012)
    with pytest.raises(ValueError, match="set it to go back"):
        clock.advance(-1)


def test_options_name_what_is_wrong_and_then_set_nothing() -> None:
    options = AccountOptions()
    with pytest.raises(ValueError, match="max_connections"):
        options.configure({"webhook_shuffle": True, "max_connections": "many"})
    with pytest.raises(ValueError, match="no option 'nope'"):
        options.configure({"nope": 1})
    assert options == AccountOptions()


def test_fault_rules_can_skip_count_and_match() -> None:
    rule = FaultRule.from_json({"action": "500", "method": "put", "path": "/members/", "skip": 1, "count": 1})
    struck = [rule.fires("PUT", "/lists/a/members/b", set(), "", Random(1)) for _ in range(3)]
    assert struck == [False, True, False]
    assert not rule.fires("GET", "/lists/a/members/b", set(), "", Random(1))
    for wrong in ({"action": "explode"}, {"action": "500", "colour": 1}, {"action": "500", "path": "("}):
        with pytest.raises(ValueError, match="fault"):
            FaultRule.from_json(wrong)


def test_times_on_the_wire() -> None:
    assert to_wire(0) == ""
    assert from_text("2026-01-09 12:00:00") == from_text("2026-01-09T14:00:00+02:00") == int(NOON.timestamp())
