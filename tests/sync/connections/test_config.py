"""The configuration as its writers leave it: PHP, the Config screen, scripts, and us."""

import json
from pathlib import Path
from typing import Any

import pytest

from civiapi.store.civicrm.settings import read_setting, write_setting
from civiapi.store.engine import Store
from sync.connections.config import (
    SETTING,
    Link,
    clear_trust_override,
    parse_config,
    read_config,
    write_config,
)
from sync.connections.config_update import clean_config
from sync.connections.config_values import as_group_id
from sync.errors import BadConfig, InvalidListId, ListNotConfigured, UnknownAccount, UnknownGroup

KEY = "0123456789abcdef0123456789abcdef-us1"
REAL_ROWS = Path(__file__).parents[4] / "shared" / "data" / "extension_rows.json"


def a_config(**link: Any) -> dict[str, Any]:
    return {
        "accounts": {
            KEY: {
                "apiKey": KEY,
                "account_name": "Acme",
                "batchWebhookSecret": "s3cret",
                "audiences": {"abc123": {"name": "News", "interests": {"i1": "Topics: Trees", "i2": "Topics: Bees"}}},
            }
        },
        "lists": {"abc123": {"apiKey": KEY, "subscriptionGroup": "12", "interests": {"i1": "13"}} | link},
    }


def test_a_link_names_its_groups_by_number() -> None:
    link = parse_config(json.dumps(a_config())).links["abc123"]
    assert link == Link("abc123", 12, KEY, interests={"i1": 13})


@pytest.mark.parametrize(
    ("value", "group_id"),
    [(12, 12), ("12", 12), (" 12 ", 12), ("", None), (None, None), (0, None), ("0", None), (True, None),
     ("x", None), (-3, None), (1.5, None), ([], None), ("٣", None), ("9" * 30, None)],
)  # fmt: skip
def test_a_group_id_is_a_positive_whole_number_however_written(value: Any, group_id: int | None) -> None:
    assert as_group_id(value) == group_id


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"lists":[],"accounts":[]}', '{"lists":null}', '{"accounts":{}}', '{"lists":"x"}']
)
def test_empty_maps_may_be_written_as_php_writes_them(text: str) -> None:
    assert parse_config(text).links == {}


def test_interests_without_a_group_are_not_linked() -> None:
    links = parse_config(a_config(interests={"i1": "", "i2": 14, "i3": None})).links
    assert links["abc123"].interests == {"i2": 14}


def test_a_linked_permission_is_an_interest_of_the_link() -> None:
    link = parse_config(a_config(permissions={"p1": "15", "p2": ""})).links["abc123"]
    assert link.interests == {"i1": 13, "permission:p1": 15}


def test_an_old_client_that_saves_what_it_read_keeps_the_permissions() -> None:
    """It knows neither the links of permissions nor the marks of those that are gone."""
    known = a_config(permissions={"p1": "15"}, interestsGone={"permission:p1": "Email", "i9": "Gone"})
    saved = clean_config(json.dumps(known))["lists"]["abc123"]
    assert (saved["permissions"], saved["interestsGone"]) == ({"p1": "15"}, {"permission:p1": "Email"})


def test_trust_override_knows_two_sides_and_ignores_the_rest() -> None:
    override = {"subscription": "Mailchimp", "i1": "CiviCRM", "i2": "", "i3": "Wilma", "i4": None}
    links = parse_config(a_config(trustOverride=override)).links
    assert links["abc123"].trust_override == {"subscription": "Mailchimp", "i1": "CiviCRM"}


def test_a_list_without_a_group_is_not_synced_but_kept() -> None:
    config = parse_config(a_config(subscriptionGroup=""))
    assert config.links == {}
    assert "abc123" in config.raw["lists"]


def test_a_group_finds_its_link() -> None:
    config = parse_config(a_config())
    assert config.link_for_group(12).list_id == "abc123"
    with pytest.raises(UnknownGroup, match=r"^Unknown group ID `9`$"):
        config.link_for_group(9)


def test_a_list_is_found_by_its_id() -> None:
    config = parse_config(a_config())
    assert config.link_for_list("abc123").group_id == 12
    with pytest.raises(ListNotConfigured, match=r"^List 'x' is not configured.$"):
        config.link_for_list("x")
    with pytest.raises(InvalidListId, match=r"^Invalid Mailchimp list id: '../x'$"):
        config.link_for_list("../x")


def test_a_webhook_secret_finds_its_account_and_an_empty_one_finds_none() -> None:
    config = parse_config(a_config() | {"accounts": a_config()["accounts"] | {"k-us1": {"apiKey": "k-us1"}}})
    found = config.find_account_by_secret("s3cret")
    assert found is not None
    assert found.name == "Acme"
    assert config.find_account_by_secret("") is None
    assert config.find_account_by_secret("ünknown") is None


def test_an_unknown_key_is_said_to_be_unknown_and_not_repeated() -> None:
    with pytest.raises(UnknownAccount, match=r"^Given API Key is not configured.$"):
        parse_config(a_config()).account("nope")


def test_no_key_and_no_secret_is_shown_when_printed() -> None:
    config = parse_config(a_config())
    shown = repr(config) + repr(config.account(KEY)) + repr(config.links["abc123"])
    assert KEY not in shown
    assert "s3cret" not in shown


async def test_what_we_do_not_know_of_is_kept_when_we_write(store: Store) -> None:
    raw = a_config(originalListName="Mock", trustOverride={"subscription": "Mailchimp", "i1": "CiviCRM"})
    await store.write(write_config, raw | {"newer": {"than": "us"}})
    await store.write(clear_trust_override, "abc123", ["subscription", "i9"])
    kept = (await store.read(read_config)).raw
    assert kept["newer"] == {"than": "us"}
    assert kept["lists"]["abc123"]["originalListName"] == "Mock"
    assert kept["lists"]["abc123"]["trustOverride"] == {"i1": "CiviCRM"}


async def test_the_setting_is_stored_as_php_serialized_json_text(store: Store) -> None:
    await store.write(write_config, {"lists": {}})
    assert await store.read(read_setting, SETTING) == '{"lists":{}}'


async def test_no_setting_is_an_empty_configuration(store: Store) -> None:
    assert (await store.read(read_config)).links == {}
    await store.write(write_setting, SETTING, False)
    assert (await store.read(read_config)).links == {}


@pytest.mark.parametrize("value", ["{bad", "3", '"text"', 12])
async def test_a_setting_that_is_no_json_object_is_said_to_be_spoilt(store: Store, value: Any) -> None:
    await store.write(write_setting, SETTING, value)
    with pytest.raises(BadConfig, match="does not hold a JSON object"):
        await store.read(read_config)


async def test_settings_of_one_name_differ_by_domain(store: Store) -> None:
    await store.write(write_setting, "one", "first")
    await store.write(write_setting, "one", {"a": [1, 2]})
    assert await store.read(read_setting, "one") == {"a": {0: 1, 1: 2}}
    assert await store.read(read_setting, "one", 2) is None


@pytest.mark.skipif(not REAL_ROWS.exists(), reason="the real extension's rows lie beside the project only")
async def test_the_setting_of_the_real_extension_is_read(store: Store) -> None:
    from sqlalchemy import insert

    from civiapi.store.schema.tables import setting

    row = json.loads(REAL_ROWS.read_text())["civicrm_setting"][0]
    await store.write(lambda conn: conn.execute(insert(setting).values(row)) and None)
    config = await store.read(read_config)
    assert [(link.list_id, link.group_id, dict(link.interests)) for link in config.links.values()] == [
        ("list_1", 2, {"aaaa000001": 3})
    ]
    assert next(iter(config.accounts.values())).secret == "e0dd40ee188310200f42c468a36180ad5cb65128"


# What updateconfig makes of what it is sent


@pytest.mark.parametrize("given", ["{bad", "", "[]", "{}", "null", "3", None, 7, [], {}, float("nan")])
def test_a_configuration_that_says_nothing_is_refused(given: Any) -> None:
    with pytest.raises(BadConfig, match=r"^Failed to parse JSON in 'config' parameter.$"):
        clean_config(given)


def test_lists_that_no_account_has_are_dropped() -> None:
    raw = a_config()
    raw["lists"]["gone"] = {"apiKey": KEY, "subscriptionGroup": 3}
    assert set(clean_config(json.dumps(raw))["lists"]) == {"abc123"}


def test_interests_that_the_audience_does_not_have_are_unlinked() -> None:
    assert clean_config(a_config(interests={"i1": 13, "zz": 14}))["lists"]["abc123"]["interests"] == {"i1": 13}


def test_interests_stay_where_the_audience_was_never_asked_for_them() -> None:
    raw = a_config(interests={"i1": 13, "zz": 14})
    del raw["accounts"][KEY]["audiences"]["abc123"]["interests"]
    assert clean_config(raw)["lists"]["abc123"]["interests"] == {"i1": 13, "zz": 14}


def test_a_configuration_without_lists_or_accounts_gets_empty_ones() -> None:
    assert clean_config({"note": 1}) == {"note": 1, "accounts": {}, "lists": {}}


@pytest.mark.parametrize(
    ("link", "sentence"),
    [
        ({"apiKey": ""}, "List 'abc123' in the config has no apiKey."),
        ({"subscriptionGroup": "x"}, "List 'abc123' in the config has no subscriptionGroup."),
    ],
)
def test_a_link_that_could_not_be_synced_is_refused(link: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        clean_config(a_config(**link))


def test_an_id_that_could_be_no_audience_is_refused() -> None:
    raw = a_config()
    raw["lists"]["a/b"] = raw["lists"].pop("abc123")
    raw["accounts"][KEY]["audiences"]["a/b"] = {"name": "x"}
    with pytest.raises(InvalidListId):
        clean_config(raw)


def test_what_was_given_is_not_changed_in_place() -> None:
    raw = a_config(interests={"zz": 14})
    clean_config(raw)
    assert raw["lists"]["abc123"]["interests"] == {"zz": 14}
