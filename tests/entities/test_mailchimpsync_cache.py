"""MailchimpsyncCache: searching one audience by either side, paging, and what troubleshoot adds to a row."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import phpserialize
import pytest
from sqlalchemy import Connection, insert

from civiapi.api.call import SYSTEM, Call
from civiapi.api.declaration.fields import STRING
from civiapi.api.dispatch import Api
from civiapi.settings import Settings, SyncSettings
from civiapi.store.databases.compiled_query import CompiledQuery
from civiapi.store.databases.sqlite import SqliteStore
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact, email, group, group_contact, subscription_history
from entities import catalogue
from entities.mailchimpsync.cache import EXTRA_FILTERS
from sync.connections.clients import Clients
from sync.connections.config import write_config
from sync.mailchimp.wire import subscriber_hash
from sync.service import SyncService
from sync.store import tables
from sync.store.members.blobs import dump_data

Ask = Callable[..., Awaitable[Any]]
LIST, GROUP, TREES = "abc123", 12, 13
ROW = "id mailchimp_list_id mailchimp_member_id mailchimp_email mailchimp_status mailchimp_updated mailchimp_data"
COLUMNS = [*ROW.split(), "civicrm_data", "civicrm_groups", "civicrm_contact_id", "sync_status", "status"]


def a_contact(conn: Connection, contact_id: int, address: str, *words: str, **more: Any) -> None:
    """A contact with an address and a history of statuses in the subscription group, the last one standing."""
    conn.execute(insert(contact).values(id=contact_id, contact_type="Individual", **more))
    conn.execute(insert(email).values(contact_id=contact_id, email=address, is_primary=1))
    for hour, status in enumerate(words):
        date = f"2026-01-05 {hour:02}:00:00"
        conn.execute(
            insert(subscription_history).values(
                contact_id=contact_id, group_id=GROUP, date=date, method="API", status=status
            )
        )
    if words:
        conn.execute(insert(group_contact).values(contact_id=contact_id, group_id=GROUP, status=words[-1]))


def a_row(conn: Connection, row_id: int, address: str | None, status: str | None, **more: Any) -> None:
    """A cache row; without an address, one of a person unknown to Mailchimp."""
    values: dict[str, Any] = {"sync_status": "ok", "mailchimp_list_id": LIST} | more
    if address:
        values |= {"mailchimp_email": address, "mailchimp_member_id": subscriber_hash(address)}
    conn.execute(insert(tables.cache).values(id=row_id, mailchimp_status=status, **values))


def fill(conn: Connection) -> None:
    conn.execute(insert(group).values(id=GROUP, name="news", title="News"))
    conn.execute(insert(group).values(id=TREES, name="trees", title="Trees"))
    link = {"apiKey": "k-us1", "subscriptionGroup": str(GROUP), "interests": {"i1": TREES}}
    write_config(conn, {"accounts": {}, "lists": {LIST: link}})
    a_contact(conn, 1, "ada@example.org", "Added", display_name="Ada Lovelace")
    a_contact(conn, 2, "bob@example.org", "Added", "Removed")
    a_contact(conn, 3, "cyd@example.org", "Removed", "Added")
    data = dump_data({"first_name": "Ada", "first_name@": "20260101000000"})
    a_row(conn, 1, "ada@example.org", "subscribed", civicrm_contact_id=1, mailchimp_data=data)
    a_row(conn, 2, "bob@example.org", "unsubscribed", civicrm_contact_id=2, sync_status="fail")
    a_row(conn, 3, None, None, civicrm_contact_id=3, sync_status="live")
    a_row(conn, 4, "zoë+news@example.org", "cleaned", sync_status="todo")
    a_row(conn, 5, "ada@example.org", "subscribed", civicrm_contact_id=1, mailchimp_list_id="other")


@pytest.fixture
async def site(store: Store) -> Store:
    await store.write(fill)
    return store


async def found(call: Ask, **params: Any) -> list[int]:
    answer = await call("MailchimpsyncCache", "get", {"mailchimp_list_id": LIST, **params})
    assert answer["is_error"] == 0, answer
    return [int(row["id"]) for row in answer["values"]]


async def test_rows_are_a_list_of_texts_with_every_column(site: Store, call: Ask) -> None:
    answer = await call("MailchimpsyncCache", "get", {"mailchimp_list_id": LIST, "civicrm_contact_id": 1})
    assert answer == {"is_error": 0, "version": 3, "count": 1, "id": 1, "values": answer["values"]}
    row = answer["values"][0]
    assert list(row) == COLUMNS
    assert all(isinstance(value, str) for value in row.values())
    assert json.loads(row["mailchimp_data"]) == {"first_name": "Ada", "first_name@": "20260101000000"}
    assert (row["civicrm_data"], row["status"]) == ("", "Added")


async def test_people_whom_civicrm_does_not_know_are_shown(site: Store, call: Ask) -> None:
    assert await found(call) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        pytest.param({"sync_status": "fail"}, [2], id="By sync status."),
        pytest.param({"mailchimp_status": "subscribed"}, [1], id="By status at Mailchimp."),
        pytest.param({"mailchimp_email": "ADA@example.org"}, [1], id="An address in any case."),
        pytest.param({"mailchimp_email": {"LIKE": "%b@ex%"}}, [2], id="A pattern as sent."),
        pytest.param({"mailchimp_email": {"LIKE": "ada%"}}, [1], id="A pattern that begins somewhere."),
        pytest.param({"mailchimp_email": "zoë+news@example.org"}, [4], id="Plus signs and accents."),
        pytest.param({"civicrm_contact_id": 2}, [2], id="A contact by number."),
        pytest.param({"civicrm_contact_id": "2"}, [2], id="A contact by text."),
        pytest.param({"civicrm_contact_id": {"IS NULL": 1}}, [4], id="Those without a contact."),
        pytest.param({"civicrm_contact_id": {"BETWEEN": [1, 2]}}, [1, 2], id="A range."),
        pytest.param({"id": {">": 2}}, [3, 4], id="By id."),
        pytest.param({"mailchimp_status": {"IN": ["cleaned", "unsubscribed"]}}, [2, 4], id="One of several."),
        pytest.param({"mailchimp_status": ["cleaned", "unsubscribed"]}, [2, 4], id="A list says the same."),
        pytest.param({"civicrm_status": "Added"}, [1, 3], id="By CiviCRM's latest word."),
        pytest.param({"civicrm_status": "Removed"}, [2], id="Which is the last one in the history."),
        pytest.param({"civicrm_status": {"IS NULL": 1}}, [4], id="By having none."),
        pytest.param({"civicrm_status": {"!=": "Added"}}, [2], id="By another."),
        pytest.param({"civicrm_status": ["Added", "Removed"]}, [1, 2, 3], id="By several."),
        pytest.param({"civicrm_status": "Added", "sync_status": "live"}, [3], id="Filters are ANDed."),
        pytest.param({"civicrm_status": "null"}, [4], id="The text null says IS NULL."),
        pytest.param({"not_to_be_mailed": "null"}, [], id="For what is no column too."),
        pytest.param(
            {
                "sync_status": "fail",
                "mailchimp_status": "cleaned",
                "options": {"or": [["sync_status", "mailchimp_status"]]},
            },
            [2, 4],
            id="Unless asked to be ORed.",
        ),
        pytest.param(
            {"sync_status": "", "mailchimp_email": "", "civicrm_status": ""}, [1, 2, 3, 4], id="Empty: no filter."
        ),
        pytest.param({"mailchimp_email": "nobody@example.org"}, [], id="Nobody."),
        pytest.param({"mailchimp_email": "' OR 1=1 --"}, [], id="Text stays text."),
    ],
)
async def test_filters_and_counts_agree(site: Store, call: Ask, filters: dict[str, Any], ids: list[int]) -> None:
    assert await found(call, **filters) == ids
    count = await call("MailchimpsyncCache", "getcount", {"mailchimp_list_id": LIST, **filters})
    assert count == len(ids)
    assert type(count) is int


async def test_pages_go_by_id_and_counts_ignore_them(site: Store, call: Ask) -> None:
    assert await found(call, options={"limit": 2}) == [1, 2]
    assert await found(call, options={"limit": 2, "offset": 2}) == [3, 4]
    assert await found(call, options={"limit": 0, "offset": 1}) == [2, 3, 4]
    assert await found(call, options={"limit": 0, "sort": "id DESC"}) == [1, 2, 3, 4]
    assert await call("MailchimpsyncCache", "getcount", {"mailchimp_list_id": LIST, "options": {"limit": 1}}) == 4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "must provide mailchimp_list_id"),
        ({"mailchimp_list_id": ""}, "must provide mailchimp_list_id"),
        ({"mailchimp_list_id": "other"}, "Invalid list id"),
        ({"mailchimp_list_id": {"IN": [LIST]}}, "Invalid list id"),
        ({"mailchimp_list_id": {"LIKE": "%"}}, "Invalid list id"),
    ],
)
@pytest.mark.parametrize("action", ["get", "getcount"])
async def test_one_configured_audience_must_be_named(
    site: Store, call: Ask, action: str, params: dict[str, Any], message: str
) -> None:
    assert (await call("MailchimpsyncCache", action, params))["error_message"] == message


async def test_getsingle_and_getvalue_find_their_row(site: Store, call: Ask) -> None:
    asked = {"mailchimp_list_id": LIST, "mailchimp_email": "bob@example.org"}
    assert (await call("MailchimpsyncCache", "getsingle", asked))["status"] == "Removed"
    assert await call("MailchimpsyncCache", "getvalue", asked | {"return": "sync_status"}) == "fail"


async def test_a_row_is_made_changed_and_deleted(site: Store, call: Ask) -> None:
    made = await call(
        "MailchimpsyncCache", "create", {"mailchimp_list_id": LIST, "mailchimp_data": '{"status":"subscribed"}'}
    )
    row = {"mailchimp_list_id": LIST, "id": made["id"]}
    assert made["values"][str(made["id"])]["sync_status"] == ""
    kept = await call("MailchimpsyncCache", "getsingle", row)
    assert (kept["sync_status"], kept["mailchimp_data"]) == ("todo", '{"status":"subscribed"}')
    await call("MailchimpsyncCache", "update", {"id": made["id"], "sync_status": "ok"})
    assert (await call("MailchimpsyncCache", "getsingle", row))["sync_status"] == "ok"
    assert (await call("MailchimpsyncCache", "delete", {"id": made["id"]}))["values"] == 1
    gone = await call("MailchimpsyncCache", "delete", {"id": made["id"]})
    assert gone["error_message"] == f"Could not delete MailchimpsyncCache id {made['id']}"


async def test_data_that_is_no_json_object_is_refused(site: Store, call: Ask) -> None:
    answer = await call("MailchimpsyncCache", "create", {"mailchimp_list_id": LIST, "mailchimp_data": "[1]"})
    assert answer["error_message"] == "mailchimp_data is not a JSON object"


# Troubleshoot


async def troubled(call: Ask, **params: Any) -> dict[str, Any]:
    answer = await call("MailchimpsyncCache", "get", {"mailchimp_list_id": LIST, "troubleshoot": 1, **params})
    assert answer["is_error"] == 0, answer
    row: dict[str, Any] = answer["values"][0]
    return row


async def test_troubleshoot_adds_every_key(site: Store, call: Ask) -> None:
    row = await troubled(call, civicrm_contact_id=1)
    added = set(row) - set(COLUMNS)
    assert added == {
        "civicrm_status", "civicrm_updated", "most_recent", "civicrm_other_groups", "civicrm_display_name", "updates",
        "errors",
    }  # fmt: skip
    assert row["civicrm_display_name"] == "Ada Lovelace"
    assert row["mailchimp_data"] == '{\n  "first_name": "Ada",\n  "first_name@": "20260101000000"\n}'


async def test_a_member_nobody_knows_is_called_unknown(site: Store, call: Ask) -> None:
    row = await troubled(call, mailchimp_email="zoë+news@example.org")
    assert (row["civicrm_display_name"], row["civicrm_status"], row["most_recent"]) == ("Unknown", "", "Mailchimp")
    assert (row["civicrm_other_groups"], row["updates"], row["errors"]) == ([], [], "")


@pytest.mark.parametrize(
    ("date", "updated", "side"),
    [
        pytest.param("2026-01-05 10:00:00", "2026-01-05 09:59:59", "CiviCRM", id="CiviCRM spoke last."),
        pytest.param("2026-01-05 10:00:00", "2026-01-05 10:00:01", "Mailchimp", id="Mailchimp spoke last."),
        pytest.param("2026-01-05 10:00:00", "2026-01-05 10:00:00", "CiviCRM", id="A tie goes to CiviCRM."),
        pytest.param("2026-01-05 10:00:00", None, "CiviCRM", id="Mailchimp never spoke."),
    ],
)
async def test_which_side_spoke_last(site: Store, call: Ask, date: str, updated: str | None, side: str) -> None:
    groups = f"{GROUP};Added;{date}|{TREES};Removed;{date}|rubbish|;;"
    await site.write(
        a_row,
        9,
        "eve@example.org",
        "subscribed",
        civicrm_contact_id=3,
        civicrm_groups=groups,
        mailchimp_updated=updated,
    )
    row = await troubled(call, id=9)
    assert (row["civicrm_status"], row["civicrm_updated"], row["most_recent"]) == ("Added", date, side)
    assert row["civicrm_other_groups"][str(TREES)] == {"status": "Removed", "updated": date, "mostRecent": side}
    assert row["civicrm_other_groups"][str(GROUP)]["status"] == "Added"


async def test_the_last_three_updates_come_newest_first_with_mailchimps_words(site: Store, call: Ask) -> None:
    problem = {
        "title": "Invalid Resource",
        "status": 400,
        "detail": "Your merge fields were invalid.",
        "errors": [{"field": "FNAME", "message": "too long"}],
    }

    def owe(conn: Connection) -> None:
        batch = {
            "id": 1,
            "status": "finished",
            "submitted_at": "2026-01-05 10:00:00",
            "completed_at": "2026-01-05 11:00:00",
        }
        conn.execute(insert(tables.batch).values(batch))
        for number, (batch_id, completed, error) in enumerate(
            [(1, 1, None), (1, 1, json.dumps(problem)), (1, 1, "Sync was aborted"), (None, 0, None)], 1
        ):
            values = {
                "id": number,
                "mailchimpsync_cache_id": 1,
                "mailchimpsync_batch_id": batch_id,
                "completed": completed,
            }
            conn.execute(insert(tables.update).values(**values, data=f'{{"n":{number}}}', error_response=error))

    await site.write(owe)
    row = await troubled(call, civicrm_contact_id=1)
    assert [json.loads(one["data"])["n"] for one in row["updates"]] == [4, 3, 2]
    assert row["updates"][0] == {
        "data": '{"n":4}',
        "completed": "0",
        "submitted_at": "",
        "completed_at": "",
        "status": "pending",
        "error": "",
        "batch_status": "",
    }
    assert (row["updates"][1]["status"], row["updates"][1]["error"]) == ("error", "Sync was aborted")
    assert row["updates"][2]["error"] == (
        'Invalid Resource: Your merge fields were invalid.\n[{"field":"FNAME","message":"too long"}]'
    )
    assert row["updates"][2]["batch_status"] == "finished"


async def test_a_member_that_existed_already_comes_with_a_hint(site: Store, call: Ask) -> None:
    problem = json.dumps({"title": "Member Exists", "status": 400, "detail": "Ada is already a list member."})
    values = {"mailchimpsync_cache_id": 1, "data": "{}", "completed": 1, "error_response": problem}
    await site.write(lambda conn: conn.execute(insert(tables.update).values(values)) and None)
    row = await troubled(call, civicrm_contact_id=1)
    assert row["updates"][0]["error"].startswith("Member Exists: Ada is already a list member. (")


# Why a row failed


@pytest.mark.parametrize(
    ("member", "more", "sentence"),
    [
        pytest.param("cleaned", {}, '"Cleaned" contacts cannot be resubscribed.', id="Cleaned."),
        pytest.param("unsubscribed", {"sync_status": "ok"}, "", id="A row that did not fail has no errors."),
        pytest.param("subscribed", {}, "Mailchimp update error.", id="Nothing else is known: Mailchimp refused."),
        pytest.param(
            "unsubscribed",
            {"civicrm_data": phpserialize.dumps({"fail": "Not to be mailed."})},
            "Not to be mailed.",
            id="What the sync noted.",
        ),
    ],
)
async def test_why_a_row_failed(site: Store, call: Ask, member: str, more: dict[str, Any], sentence: str) -> None:
    await site.write(a_contact, 9, "eve@example.org", "Added")
    await site.write(a_row, 9, "eve@example.org", member, **({"civicrm_contact_id": 9, "sync_status": "fail"} | more))
    assert (await troubled(call, id=9))["errors"] == sentence


async def test_a_row_failed_because_the_address_is_on_hold(site: Store, call: Ask) -> None:
    def given(conn: Connection) -> None:
        a_contact(conn, 9, "eve@example.org", "Added")
        conn.execute(email.update().where(email.c.contact_id == 9).values(on_hold=1))
        a_row(conn, 9, "eve@example.org", "unsubscribed", civicrm_contact_id=9, sync_status="fail")

    await site.write(given)
    expected = "This contact's email is on hold in CiviCRM so we're not going to subscribe them."
    assert (await troubled(call, id=9))["errors"] == expected


async def test_a_row_failed_because_another_address_is_subscribed(site: Store, call: Ask) -> None:
    def given(conn: Connection) -> None:
        a_contact(conn, 9, "eve@example.org", "Added")
        conn.execute(insert(email).values(contact_id=9, email="eve@home.example.org"))
        a_row(conn, 9, "eve@example.org", "subscribed", civicrm_contact_id=9)
        a_row(conn, 10, "eve@home.example.org", "unsubscribed", civicrm_contact_id=9, sync_status="fail")

    await site.write(given)
    errors = (await troubled(call, id=10))["errors"]
    assert errors.startswith("This CiviCRM contact has 2 emails. This one is unsubscribed at Mailchimp, but the other")
    assert "eve@example.org" in errors


@pytest.mark.parametrize("respects", [True, False], ids=["the sync respects privacy", "the sync does not"])
async def test_troubleshoot_treats_privacy_as_the_sync_does(site: Store, respects: bool) -> None:
    def given(conn: Connection) -> None:
        a_contact(conn, 9, "eve@example.org", "Added", is_opt_out=1)
        a_row(conn, 9, "eve@example.org", "unsubscribed", civicrm_contact_id=9, sync_status="fail")

    await site.write(given)
    sync = SyncService(site, Clients(), Settings(sync=SyncSettings(respect_privacy=respects)))
    [explained] = await sync.explain(contact_id=9)
    api = Api(site, catalogue(), sync=sync)
    get = {"mailchimp_list_id": LIST, "troubleshoot": 1, "id": 9}
    [row] = (await api.answer(Call("MailchimpsyncCache", "get", get, SYSTEM)))["values"]
    assert ("not to be mailed" in row["errors"]) == respects
    assert (explained["kind"] == "cannot") == respects
    assert row["errors"] == (explained["reason"] if respects else "Mailchimp update error.")


# At scale


@pytest.mark.parametrize(
    "filters",
    [
        {"mailchimp_email": "a@example.org"},
        {"civicrm_contact_id": 5},
        {"sync_status": "fail", "options": {"offset": 500, "limit": 10}},
    ],
)
async def test_usual_searches_scan_no_table(
    site: Store, call: Ask, filters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(site, SqliteStore):
        pytest.skip("reads SQLite's own words on how it goes about a query")
    plans: list[str] = []
    as_it_is = CompiledQuery.rows

    def explained(query: CompiledQuery, conn: Connection, values: Any, me: int | None = None) -> Any:
        plan = replace(query, text=f"EXPLAIN QUERY PLAN {query.text}")
        plans.extend(str(row[3]) for row in as_it_is(plan, conn, values, me))
        return as_it_is(query, conn, values, me)

    monkeypatch.setattr(CompiledQuery, "rows", explained)
    await found(call, **filters)
    assert any("civicrm_mailchimpsync_cache" in line for line in plans), plans
    assert not [line for line in plans if line.startswith("SCAN") and "civicrm_" in line]


# Backwards, and by why it failed: ours, for the People page


async def test_the_order_can_be_turned_round_for_the_page_before(call: Ask, site: Store) -> None:
    assert await found(call, backwards=1, id={"<": 4}, options={"limit": 2}) == [3, 2]
    assert await found(call, backwards=0) == [1, 2, 3, 4]


async def test_rows_are_found_by_why_they_failed(call: Ask, site: Store) -> None:
    refused = {"mailchimpsync_cache_id": 2, "data": "{}", "completed": 1}

    def fail(conn: Connection) -> None:
        conn.execute(
            insert(tables.update).values(**refused, error_response='{"title":"Forgotten Email Not Subscribed"}')
        )
        noted = dump_data({"fail": "This contact's email is on hold in CiviCRM."})
        conn.execute(tables.cache.update().where(tables.cache.c.id == 3).values(sync_status="fail", civicrm_data=noted))

    await site.write(fail)
    assert await found(call, sync_status="fail", why_failed={"LIKE": "%forgotten email%"}) == [2]
    assert await found(call, why_failed={"LIKE": "%on hold%"}) == [3]
    await site.write(lambda conn: conn.execute(insert(tables.update).values(**refused)) and None)
    assert await found(call, why_failed={"LIKE": "%forgotten%"}) == [], "the last update is what counts"


@pytest.mark.usefixtures("site")
async def test_a_status_is_found_alike_by_its_contacts_and_along_the_audience(call: Ask) -> None:
    """Equality begins with the few contacts that ever had the status; LIKE reads the audience in order."""
    for status in ("Added", "Removed", "Pending", "Deleted"):
        rows = [await found(call, civicrm_status=sought) for sought in (status, {"IN": [status]}, {"LIKE": status})]
        assert rows[0] == rows[1] == rows[2]
    assert await found(call, civicrm_status="Added", civicrm_contact_id={"IN": [1, 2, 3]}) == [1, 3]


TEXTS = {
    "civicrm_status": "Removed",
    "why_failed": "He is on hold in CiviCRM",
    "cause": "on hold",
    "permissions": "p1Q",
}


@pytest.mark.parametrize("name", [one.name for one in EXTRA_FILTERS if one.type == STRING])
async def test_what_is_worked_out_compares_without_case_like_columns(site: Store, call: Ask, name: str) -> None:
    """SQLite takes the collation of a column that is compared by itself, and none for an expression."""

    def fill_in(conn: Connection) -> None:
        noted = {"mailchimpsync_cache_id": 2, "data": "{}", "completed": 1, "error_response": TEXTS["why_failed"]}
        conn.execute(insert(tables.update).values(noted))
        conn.execute(insert(tables.consent).values(cache_id=2, permission_id=TEXTS["permissions"], granted=1))

    await site.write(fill_in)
    for sought in (TEXTS[name], TEXTS[name].upper(), TEXTS[name].lower()):
        for one in (sought, [sought], {"IN": [sought]}, {"BETWEEN": [sought, sought]}, {"LIKE": sought}):
            assert await found(call, **{name: one}) == [2], one
        for one in ({"!=": sought}, {"NOT IN": [sought]}, {">": sought}):
            assert 2 not in await found(call, **{name: one}), one
