"""One odd member never blocks the others: whatever is odd about it, the rest of its page come in."""

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, delete, insert, literal, select

from civiapi.store.schema.tables import contact, email
from sync.mailchimp.archive import read_archive, write_archive
from sync.mailchimp.decoding import decode
from sync.mailchimp.wire import read_member, subscriber_hash
from sync.store.members.cache_merge import merge_page
from sync.store.members.member_codec import decode as decode_data
from sync.store.tables import cache
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            yield opened


async def test_half_an_emoji_in_one_name_is_repaired_and_everyone_comes_in(site: Site) -> None:
    site.joined("before@example.org", "after@example.org")
    site.joined("ann@example.org", merge_fields={"FNAME": "Ann \ud83d", "LNAME": "Half"})
    assert (await site.run(since="ever")).outcome == "finished"
    assert {one.first_name for one in await site.contacts()} == {None, "Ann \ufffd"}
    assert [one.sync_status for one in await site.rows()] == ["ok"] * 3
    assert (await site.run(since="ever")).counts["readyToFetch"]["changed"] == 0


async def test_half_an_emoji_in_a_batch_result_is_a_success_like_any_other(site: Site) -> None:
    await site.person("ann@example.org", at=datetime.now(UTC) + timedelta(minutes=1))
    site.joined("ann@example.org", status="unsubscribed", merge_fields={"FNAME": "Ann \ud83d"})
    await site.run(since="ever")
    await site.settle()
    assert site.at_mailchimp("ann@example.org") == "subscribed"
    assert [one.error_response for one in await site.updates()] == [None]
    assert (await site.row("ann@example.org")).sync_status == "ok"


async def test_several_rows_of_one_member_become_one_and_each_contact_keeps_a_row(site: Site) -> None:
    """Two processes of CiviCRM's extension that work at once leave such rows; both would send the member's data."""
    first, second = [await site.person("ann@example.org", first_name=name) for name in ("Ann", "Anne")]
    site.joined("ann@example.org")
    await site.run(since="ever")
    await site.settle()
    kept = await site.row("ann@example.org")

    def double(conn: Connection) -> None:
        others = cache.c.civicrm_contact_id != kept.civicrm_contact_id
        conn.execute(delete(cache).where(others))
        columns = [one for one in cache.c if one.name not in ("id", "civicrm_contact_id")]
        for contact_id in (None, first, second):
            names = [*(one.name for one in columns), "civicrm_contact_id"]
            again = select(*columns, literal(contact_id)).where(cache.c.id == kept.id)
            conn.execute(insert(cache).from_select(names, again))

    await site.store.write(double)
    await site.run(since="ever", with_data=True)
    await site.settle()
    rows = {row.civicrm_contact_id: row.mailchimp_member_id for row in await site.rows()}
    assert rows == {
        kept.civicrm_contact_id: kept.mailchimp_member_id,
        ({first, second} - {kept.civicrm_contact_id}).pop(): None,
    }
    assert site.at_mailchimp("ann@example.org") == "subscribed"


GOOD: dict[str, Any] = {
    "id": subscriber_hash("odd@example.org"),
    "email_address": "odd@example.org",
    "contact_id": "c" * 32,
    "status": "subscribed",
    "merge_fields": {"FNAME": "Odd", "LNAME": "One"},
    "interests": {},
    "timestamp_opt": "2026-01-09T10:00:00+00:00",
    "last_changed": "2026-01-09T10:00:02+00:00",
}
ODD_VALUES: tuple[Any, ...] = (
    None,
    7,
    True,
    1.5,
    [],
    ["x"],
    {},
    {"a": {"b": []}},
    "",
    "x" * 70_000,
    "\x00",
    "0001-01-01",
)
DATES = (
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00",
    "2999-01-01T00:00:00+00:00",
    "0000-00-00 00:00:00",
    "yesterday",
)


@pytest.mark.parametrize("key", list(GOOD))
async def test_a_key_of_any_other_type_or_length_spoils_only_its_own_member(site: Site, key: str) -> None:
    audience = await site.audience()
    values = (*ODD_VALUES, *(DATES if key in ("timestamp_opt", "last_changed") else ()))
    odd: list[Any] = [GOOD | {key: value} for value in values]
    odd += [{name: value for name, value in GOOD.items() if name != key}, None, "member", []]
    for value in odd:
        page = [read_member(one) for one in (_member("a@example.org"), value, _member("b@example.org"))]
        await site.store.write(merge_page, audience, page, serial=1)
    found = {row.mailchimp_email: row.mailchimp_status for row in await site.rows()}
    assert found["a@example.org"] == found["b@example.org"] == "subscribed"
    assert (await site.run(since="ever")).outcome == "finished"


def _member(address: str) -> dict[str, Any]:
    return GOOD | {
        "id": subscriber_hash(address),
        "email_address": address,
        "contact_id": subscriber_hash(address)[:30],
    }


@pytest.mark.parametrize("name", [["Ann"], {"first": "Ann"}, True, None])
async def test_a_name_that_is_no_text_is_no_name(site: Site, name: Any) -> None:
    member = read_member(GOOD | {"merge_fields": {"FNAME": name, "LNAME": 7}})
    await site.store.write(merge_page, await site.audience(), [member])
    [row] = await site.rows()
    data = decode_data(row.mailchimp_data)
    assert (data["first_name"], data["last_name"]) == ("", "7")


async def test_the_longest_address_that_civicrm_can_hold_comes_in_and_a_longer_one_is_left_out(site: Site) -> None:
    audience = await site.audience()
    longest, longer = ("x" * (length - 12) + "@example.org" for length in (254, 255))
    await site.store.write(
        merge_page, audience, [_member(longest) | {"merge_fields": {"FNAME": "🙂" * 255}}, _member(longer)]
    )
    await site.run(since=datetime.now(UTC), stop_on="readyToReconcileQueue")
    addresses = await site.store.read(lambda conn: list(conn.execute(select(email.c.email)).scalars()))
    assert longest in addresses
    assert longer not in addresses
    names = await site.store.read(lambda conn: list(conn.execute(select(contact.c.first_name)).scalars()))
    assert "🙂" * 64 in names


@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param(rb'"Ann \ud83d"', "Ann \ufffd", id="half a surrogate pair"),
        pytest.param(rb'"\ude42 Ann"', "\ufffd Ann", id="its other half"),
        pytest.param(rb'"Ann \ud83d\ude42"', "Ann 🙂", id="a whole pair"),
        pytest.param(b'"Ann \xff"', "Ann \ufffd", id="a byte that is not UTF-8"),
        pytest.param(b'"Ann\tB"', "Ann\tB", id="a tab that is not escaped"),
        pytest.param(b"NaN", None, id="a number that is none"),
    ],
)
def test_what_strict_json_does_not_allow_is_repaired(content: bytes, name: str | None) -> None:
    page = b'{"members":[{"id":"a","n":1},{"id":"b","n":' + content + b'},{"id":"c","n":3}],"total_items":3}'
    wanted = {"members": [{"id": "a", "n": 1}, {"id": "b", "n": name}, {"id": "c", "n": 3}], "total_items": 3}
    for chunk in (1, 2, 100):
        assert decode(page, chunk=chunk) == wanted
    assert decode(page[:-9]) is None


def test_json_nested_without_end_is_none() -> None:
    assert decode(b'{"a":' + b"[" * 200_000) is None
    assert decode(b'{"a":NaN,"b":' + b"[" * 200_000 + b"]" * 200_000 + b"}") is None


def test_a_result_with_half_an_emoji_is_read() -> None:
    answer = '{"id":"a","merge_fields":{"FNAME":"Ann \\ud83d"}}'
    archive = write_archive([{"status_code": 200, "operation_id": "one", "response": answer}], rng=Random(1))
    [result, *_] = read_archive(io.BytesIO(archive))
    assert result.response == {"id": "a", "merge_fields": {"FNAME": "Ann \ufffd"}}
    assert orjson.loads(orjson.dumps(result.response))
