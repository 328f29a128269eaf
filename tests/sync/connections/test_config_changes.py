"""What a changed configuration is said to have changed: each part in a sentence, nothing twice, and no secret."""

import asyncio
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civiapi.store.author import Author
from civiapi.store.engine import open_store
from sync.connections.config import read_config, write_config
from sync.connections.config_changes import changes, ending_of, facts_of, regrouped
from sync.store.tables import event
from tests.support.databases import KINDS, a_database

KEY, OTHER = "0123456789abcdef0123456789abcdef-us1", "fedcba9876543210fedcba9876543210-us2"
TREES = "9143cf3bd1"


def a_config(key: str = KEY, **link: Any) -> dict[str, Any]:
    audience = {"name": "News", "interests": {TREES: "Topics: Trees"}}
    account = {"apiKey": key, "account_name": "Acme", "batchWebhookSecret": "s3cret", "audiences": {"abc123": audience}}
    whole = {"apiKey": key, "subscriptionGroup": "12", "interests": {}, **link}
    return {"accounts": {key: account}, "lists": {"abc123": whole}}


def said(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[str]]:
    return changes(facts_of(before), facts_of(after))


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (a_config(), a_config(subscriptionGroup=12, brake={"people": 7}), []),
        (a_config(), a_config(subscriptionGroup=13), [("abc123", "")]),
        (a_config(), a_config(interests={TREES: 14}), [("abc123", TREES)]),
        (a_config(interests={TREES: 14}), a_config(interests={TREES: "14"}), []),
        (a_config(interests={TREES: 14}), a_config(interests={TREES: 15}), [("abc123", TREES)]),
        (a_config(interests={TREES: 14}), a_config(), []),
        ({"lists": {}}, a_config(interests={TREES: 14}), []),
        (a_config(), a_config(permissions={"p1": 14}), [("abc123", "permission:p1")]),
    ],
)
def test_what_is_linked_with_another_group_is_known(before: Any, after: Any, found: list[tuple[str, str]]) -> None:
    assert list(regrouped(facts_of(before), facts_of(after))) == found


@pytest.mark.parametrize(
    ("after", "sentences"),
    [
        (a_config(), []),
        (a_config(subscriptionGroup=12), []),  # a number or a text, as PHP and scripts write it
        (a_config(interests=[]), []),
        (a_config(subscriptionGroup="13"), ["The group changed from 12 to 13."]),
        (a_config(interests={TREES: "14"}), ["Interest “Topics: Trees” was linked with group 14."]),
        (
            a_config(interests={TREES: 14}, interestsGone={TREES: "Trees"}),
            [
                "Interest “Topics: Trees” was linked with group 14.",
                "Interest “Topics: Trees” is gone at Mailchimp; syncs leave it out.",
            ],
        ),
        (a_config(permissions={"p1": "14"}), ["Marketing permission “p1” was linked with group 14."]),
        (
            a_config(permissions={"p1": "14"}, interestsGone={"permission:p1": "Email"}),
            [
                "Marketing permission “Email” was linked with group 14.",
                "Marketing permission “Email” is gone at Mailchimp; syncs leave it out.",
            ],
        ),
        (a_config(brake={"people": "50"}), ["The brake's limit “people” changed from the site's to 50."]),
        (
            a_config(trustOverride={"subscription": "mailchimp"}),
            ["For the subscription, Mailchimp wins in the next run."],
        ),
        (a_config(later={"x": 1}), ["Other settings of the connection changed: “later”."]),
        (
            a_config(OTHER),
            [
                "The account key changed from …cdef to …3210.",
                "Account “Acme” with the key …cdef was removed.",
                "Account “Acme” with the key …3210 was added.",
            ],
        ),
    ],
)
def test_each_change_is_a_sentence(after: dict[str, Any], sentences: list[str]) -> None:
    assert said(a_config(), after).get("abc123", []) == sentences


def test_a_removed_connection_and_a_new_one() -> None:
    gone = {"accounts": {}, "lists": {}}
    assert said(a_config(), gone) == {
        "abc123": [
            "Audience “News” is no longer linked with group 12 (account key …cdef).",
            "Account “Acme” with the key …cdef was removed.",
        ]
    }
    assert said(gone, a_config(brake={"percent": 5}))["abc123"][:2] == [
        "Audience “News” was linked with group 12 (account key …cdef).",
        "The brake's limit “percent” changed from the site's to 5.",
    ]


def test_what_mailchimp_said_of_an_audience_is_no_change_of_the_configuration() -> None:
    after = a_config()
    account = after["accounts"][KEY]
    account |= {"batchWebhookFound": True, "batchWebhooks": [{"url": "https://x.example.org"}]}
    account["audiences"]["abc123"] |= {"name": "New name", "webhookFound": True, "interests": {}}
    assert said(a_config(), after) == {}


def test_a_replaced_secret_is_told_of_each_connection_of_its_account() -> None:
    after = a_config()
    after["accounts"][KEY]["batchWebhookSecret"] = "another"
    after["accounts"][KEY]["audiences"]["other"] = {"name": "Other"}
    before = deepcopy(after)
    before["accounts"][KEY]["batchWebhookSecret"] = "s3cret"
    for config in (before, after):
        config["lists"]["other"] = {"apiKey": KEY, "subscriptionGroup": 20}
    told = ["Account “Acme” with the key …cdef: the secret of its webhooks was replaced."]
    assert said(before, after) == {"abc123": told, "other": told}


@pytest.mark.parametrize(("key", "shown"), [(KEY, "…cdef"), ("short-us1", "…"), ("", "…"), ("0123456789", "…6789")])
def test_of_a_key_four_characters_are_shown_and_of_a_short_one_none(key: str, shown: str) -> None:
    assert ending_of(key) == shown


def test_whatever_writes_settings_records_what_it_does_to_the_configuration() -> None:
    """A new road has to take `recorded_change` too, and be named here."""
    roads = {"sync/connections/config.py", "entities/site/setting.py"}
    root = Path(__file__).parents[3]
    writers = {
        str(file.relative_to(root))
        for top in ("civiapi", "entities", "sync")
        for file in (root / top).rglob("*.py")
        if re.search(r"\bwrite_setting\(|(insert|update|delete)\((tables\.)?setting\)", file.read_text("utf-8"))
    }
    assert writers - roads == {"civiapi/store/civicrm/settings.py"}
    assert all("recorded_change(" in (root / road).read_text("utf-8") for road in roads)


MARKED = st.integers(10**29, 10**30 - 1).map(
    lambda number: str(number).translate(str.maketrans("0123456789", "QXZJKVWGHY"))
)
ANY = st.recursive(MARKED | st.none() | st.booleans(), lambda part: st.lists(part, max_size=3), max_leaves=4)
LINK = st.fixed_dictionaries(
    {"apiKey": MARKED, "subscriptionGroup": st.integers(1, 99) | MARKED},
    optional={
        "interests": st.dictionaries(st.just(TREES), st.integers(1, 9) | MARKED) | ANY,
        "permissions": st.dictionaries(st.just("p1"), st.integers(1, 9) | MARKED) | ANY,
        "brake": st.fixed_dictionaries({}, optional={"people": ANY, "password": ANY}) | ANY,
        "trustOverride": st.dictionaries(st.just("subscription"), MARKED) | ANY,
        "mergeFields": st.dictionaries(st.just("JOB"), MARKED.map(lambda text: f"text:{text}") | st.none()),
        "sendNames": ANY,
        "password": ANY,
        "token": ANY,
    },
)
ACCOUNT = st.fixed_dictionaries(
    {"apiKey": MARKED}, optional={"batchWebhookSecret": MARKED, "login": ANY, "audiences": ANY}
)
CONFIG = st.fixed_dictionaries(
    {"accounts": st.dictionaries(MARKED, ACCOUNT | ANY, max_size=2)},
    optional={"lists": st.dictionaries(st.sampled_from(["abc123", "other"]), LINK | ANY), "site_key": ANY},
)


@given(CONFIG, CONFIG)
def test_whatever_is_stored_no_more_than_four_characters_of_a_value_are_told(before: Any, after: Any) -> None:
    told = str(said(before, after)) + str(said({}, before))
    texts = set(_texts(before)) | set(_texts(after))
    assert not [text for text in texts for at in range(len(text) - 4) if text[at : at + 5] in told]
    assert not [text for text in texts if text[:8] in str(facts_of(before))]


@given(CONFIG, CONFIG)
def test_the_same_twice_is_no_change(one: Any, other: Any) -> None:
    assert said(one, deepcopy(one)) == {}
    if said(one, other):
        assert facts_of(one) != facts_of(other)


def _texts(value: Any) -> list[str]:
    """The marked texts of a configuration, names included."""
    if isinstance(value, dict):
        return [text for key, part in value.items() for text in (*_texts(key), *_texts(part))]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    marked = isinstance(value, str) and len(value.removeprefix("text:")) == 30
    return [value.removeprefix("text:")] if marked else []


@pytest.mark.parametrize("kind", KINDS)
async def test_changes_at_the_same_time_are_each_told_once_with_their_author(kind: str, tmp_path: Path) -> None:
    with a_database(kind, tmp_path) as url:
        stores = [await open_store(url) for _ in range(4)]
        await stores[0].write(write_config, a_config())

        async def change(number: int) -> None:
            await stores[number % 4].write(write_config, a_config(brake={"people": number}), Author(number, ""))

        await asyncio.gather(*(change(number) for number in range(12)))
        rows = await stores[0].read(lambda conn: conn.execute(event.select().order_by(event.c.id)).all())
        last = (await stores[0].read(read_config)).links["abc123"].brake["people"]
        for store in stores:
            await store.close()
    told = rows[-12:]
    assert sorted(row.contact_id for row in told) == list(range(12))
    assert all(row.sentence.endswith(f"to {row.contact_id}.") for row in told)
    assert told[-1].contact_id == last
    froms = [row.sentence.split(" from ")[1].split(" to ")[0] for row in told]
    assert froms[1:] == [str(row.contact_id) for row in told[:-1]]
