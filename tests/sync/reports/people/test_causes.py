"""Failures grouped by cause: each failed row has one, and the filter of a cause finds its rows and no others."""

from typing import Any

import pytest
from sqlalchemy import Connection, insert

from civiapi.api.call import SYSTEM, Call
from civiapi.api.dispatch import Api
from civiapi.settings import Settings
from civiapi.store.engine import Store
from entities import catalogue
from sync.connections.clients import Clients
from sync.connections.config import write_config
from sync.emulator.protocol import problems
from sync.reconcile import reasons
from sync.reports.people.causes import CAUSES, OTHER, label_of
from sync.service import SyncService
from sync.store import tables
from sync.store.members.blobs import dump_data
from sync.store.members.privacy import OBJECTIONS

LIST, GROUP = "abc123", 12
ADA = "ada@example.org"
FACTS = {column: fact for column, _, fact in OBJECTIONS}
OBJECTS = "Joined the group, but is not to be mailed ({}): not subscribed."
NOTED = {
    "no address": reasons.NO_EMAIL_TEXT,
    "no usable address": reasons.malformed("nobody"),
    "on hold": reasons.ON_HOLD_TEXT,
    "deceased": OBJECTS.format(FACTS["is_deceased"]),
    "opted out": OBJECTS.format(FACTS["is_opt_out"]),
    "do not email": OBJECTS.format(FACTS["do_not_email"]),
    "bounced at Mailchimp": reasons.CLEANED_TEXT,
    "address shared with another contact": reasons.shared_address(ADA, 7),
}
"""Why the sync does not send somebody."""

REFUSED = {
    "Mailchimp: looks fake": problems.fake_address(ADA),
    "Mailchimp: permanently deleted": problems.forgotten(ADA),
    "Mailchimp: compliance state": problems.compliance(ADA),
    "Mailchimp: invalid merge fields": problems.merge_fields_invalid([]),
    "Mailchimp: signed up too often lately": problems.throttled_person(ADA),
    OTHER.label: problems.member_exists(ADA),
}
"""What Mailchimp refuses."""


def fill(conn: Connection) -> None:
    """Failed rows, one more of each cause than of the one before; one row that has not failed; and one elsewhere."""
    link = {"apiKey": "k-us1", "subscriptionGroup": str(GROUP), "interests": {}}
    write_config(conn, {"accounts": {}, "lists": {LIST: link}})
    for count, text in enumerate(NOTED.values(), 1):
        for _ in range(count):
            a_row(conn, civicrm_data=dump_data({"fail": text}))
    for count, problem in enumerate(REFUSED.values(), len(NOTED) + 1):
        for _ in range(count):
            row_id = a_row(conn)
            answer = str(problem.document("x")).replace("'", '"')
            sent = {"mailchimpsync_cache_id": row_id, "data": "{}", "completed": 1, "error_response": answer}
            conn.execute(insert(tables.update).values(**sent))
    a_row(conn, sync_status="ok", civicrm_data=dump_data({"fail": reasons.ON_HOLD_TEXT}))
    a_row(conn, mailchimp_list_id="other", civicrm_data=dump_data({"fail": reasons.ON_HOLD_TEXT}))


def a_row(conn: Connection, **more: Any) -> int:
    values = {"mailchimp_list_id": LIST, "sync_status": "fail"} | more
    made = conn.execute(insert(tables.cache).values(**values)).inserted_primary_key
    assert made is not None
    return int(made[0])


def test_every_cause_has_a_text_that_is_stored_for_it() -> None:
    assert {*NOTED, *REFUSED} == {one.label for one in (*CAUSES, OTHER)}
    for label, text in NOTED.items():
        assert label_of(text) == label
    for one in (*CAUSES, OTHER):
        assert one.remedy
        assert not {"'", "%", "\\"} & set(one.part + one.label), "they are part of SQL as they are"


@pytest.fixture
async def failures(store: Store) -> Any:
    """``Mailchimpsync.getfailures`` of these rows, and what makes a call."""
    await store.write(fill)
    clients = Clients(base_url="http://127.0.0.1:9")
    api = Api(store, catalogue(), SyncService(store, clients, Settings()))

    async def ask(entity: str, action: str, **params: Any) -> Any:
        answer = await api.respond(Call(entity, action, {"version": 3, **params}, SYSTEM))
        assert not answer["is_error"], answer
        return answer["values"] if "values" in answer else answer["result"]

    yield ask
    await clients.close()


async def test_failures_are_counted_by_cause_and_each_filter_finds_its_people(failures: Any) -> None:
    found = await failures("Mailchimpsync", "getfailures", group_id=GROUP)
    labels = [*NOTED, *REFUSED]
    counts = {one["cause"]: one["count"] for one in found}
    assert counts == {label: number for number, label in enumerate(labels, 1)}
    ordered = [one["cause"] for one in found]
    assert ordered == [*reversed(labels[:-1]), OTHER.label], "the most frequent first, other reasons last"
    seen: set[str] = set()
    for one in found:
        rows = await failures("MailchimpsyncCache", "get", **one["filter"], options={"limit": 0})
        assert len(rows) == one["count"], one
        seen |= {row["id"] for row in rows}
    assert len(seen) == sum(counts.values())
    one = found[0]
    done = await failures("Mailchimpsync", "includematching", **one["filter"])
    assert done["matched"] == one["count"]
    assert one["cause"] not in {
        other["cause"] for other in await failures("Mailchimpsync", "getfailures", group_id=GROUP)
    }
