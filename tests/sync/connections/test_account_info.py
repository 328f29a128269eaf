"""Fetching an account by its key, by the real client against the emulator."""

import pytest

from civiapi.store.civicrm.settings import read_setting
from civiapi.store.engine import Store
from sync.connections.account_info import fetch_account_info
from sync.connections.clients import Clients
from sync.connections.config import SETTING, read_config
from sync.emulator.model.records import Interest, InterestCategory
from sync.emulator.server.running import Emulator
from sync.errors import MailchimpFailed, SyncError
from tests.support.saved_account import saved

OTHER_KEY = "ffffffffffffffffffffffffffffffff-us1"


def with_interests(emulator: Emulator) -> None:
    audience = emulator.audience()
    audience.categories["c1"] = InterestCategory(
        id="c1", title="Topics", interests={"i1": Interest("i1", "c1", "Trees"), "i2": Interest("i2", "c1", "Bees")}
    )


async def test_an_account_is_shown_with_eleven_keys(store: Store, clients: Clients, emulator: Emulator) -> None:
    with_interests(emulator)
    found = await fetch_account_info(store, clients, "https://crm.example.org/", emulator.key)
    assert set(found) == {
        "account_name", "email", "first_name", "last_name", "username", "audiences", "webhookUrl",
        "batchWebhookSecret", "batchWebhook", "batchWebhooks", "batchWebhookFound",
    }  # fmt: skip
    assert found["account_name"] == "Demo"
    audience = found["audiences"][emulator.audience().id]
    assert audience["interests"] == {"i1": "Topics: Trees", "i2": "Topics: Bees"}
    assert audience["webhooks"] == []
    assert audience["webhookFound"] is False


async def test_an_audience_without_interests_has_no_such_key(
    store: Store, clients: Clients, emulator: Emulator
) -> None:
    found = await fetch_account_info(store, clients, "https://crm.example.org", emulator.key)
    assert "interests" not in found["audiences"][emulator.audience().id]


async def test_an_audience_with_gdpr_fields_is_shown_with_its_permissions(
    store: Store, clients: Clients, emulator: Emulator
) -> None:
    """Mailchimp lists them with each member only."""
    emulator.audience().marketing_permissions = [{"marketing_permission_id": "p1", "text": "Email"}]
    shown = emulator.audience().id
    found = await fetch_account_info(store, clients, "https://crm.example.org", emulator.key)
    assert "permissions" not in found["audiences"][shown]
    emulator.admin("import", "ada@example.org")
    found = await fetch_account_info(store, clients, "https://crm.example.org", emulator.key)
    assert found["audiences"][shown]["permissions"] == {"p1": "Email"}


async def test_a_new_account_has_one_secret_everywhere(store: Store, clients: Clients, emulator: Emulator) -> None:
    found = await fetch_account_info(store, clients, "https://crm.example.org", emulator.key)
    secret = found["batchWebhookSecret"]
    assert len(secret) == 40
    page = "https://crm.example.org/civicrm/mailchimpsync"
    assert found["webhookUrl"] == f"{page}/webhook?secret={secret}"
    assert found["batchWebhook"] == f"{page}/batch-webhook?secret={secret}"
    assert found["audiences"][emulator.audience().id]["webhook"] == found["webhookUrl"]


async def test_a_known_account_keeps_its_secret(store: Store, clients: Clients, emulator: Emulator) -> None:
    await saved(store, clients, emulator)
    stored = (await store.read(read_config)).account(emulator.key).secret
    again = await fetch_account_info(store, clients, "https://crm.example.org", emulator.key)
    assert again["batchWebhookSecret"] == stored


async def test_looking_at_an_account_stores_nothing(store: Store, clients: Clients, emulator: Emulator) -> None:
    await fetch_account_info(store, clients, "https://crm.example.org", emulator.key)
    assert await store.read(read_setting, SETTING) is None


async def test_a_wrong_key_is_a_4xx_error_and_is_not_repeated(store: Store, clients: Clients) -> None:
    with pytest.raises(MailchimpFailed) as failed:
        await fetch_account_info(store, clients, "", OTHER_KEY)
    assert str(failed.value).startswith(
        "Failed to access Mailchimp API (4xx error) with given key. Error: API Key Invalid: "
    )
    assert OTHER_KEY not in str(failed.value)


async def test_a_key_without_a_data_centre_is_told_so(store: Store, clients: Clients) -> None:
    with pytest.raises(SyncError, match=r"^Invalid API key - could not extract datacentre from given API key.$"):
        await fetch_account_info(store, clients, "", "nocentre")


@pytest.mark.parametrize("fault", ["500", "200_html", "reset_before"])
async def test_a_mailchimp_out_of_order_is_an_other_error(
    store: Store, clients: Clients, emulator: Emulator, fault: str
) -> None:
    emulator.add_fault(fault)
    with pytest.raises(MailchimpFailed, match=r"^Failed to access Mailchimp API \(other error\). Error: "):
        await fetch_account_info(store, clients, "", emulator.key)


async def test_a_mailchimp_that_is_not_there_is_an_other_error(store: Store, unused_tcp_port: int) -> None:
    pool = Clients(base_url=f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(MailchimpFailed, match=r"\(other error\)"):
        await fetch_account_info(store, pool, "", OTHER_KEY)
