"""Adding, deleting and checking webhooks, by the real client against the emulator."""

from copy import deepcopy
from typing import Any

import pytest

from civiapi.store.engine import Store
from sync.connections.clients import Clients
from sync.connections.config import read_config
from sync.connections.config_update import update_config
from sync.connections.webhook_update import check_webhooks, update_webhook
from sync.emulator.server.running import Emulator
from sync.errors import MailchimpFailed, NoBaseUrl, SyncError
from tests.support.saved_account import saved


async def test_an_audience_webhook_is_added_once_and_stored(
    store: Store, clients: Clients, emulator: Emulator, site: str
) -> None:
    list_id = await saved(store, clients, emulator, site)
    for _ in range(2):
        config = await update_webhook(
            store, clients, site, process="add_webhook", api_key=emulator.key, list_id=list_id
        )
    audience = config.raw["accounts"][emulator.key]["audiences"][list_id]
    assert audience["webhookFound"] is True
    assert [hook["url"] for hook in audience["webhooks"]] == [audience["webhook"]]
    assert audience["webhooks"][0]["sources"] == {"user": True, "admin": True, "api": False}
    assert (await store.read(read_config)).raw == config.raw


async def test_an_audience_webhook_is_deleted_and_stored(
    store: Store, clients: Clients, emulator: Emulator, site: str
) -> None:
    list_id = await saved(store, clients, emulator, site)
    ask: dict[str, Any] = {"api_key": emulator.key, "list_id": list_id}
    added = await update_webhook(store, clients, site, process="add_webhook", **ask)
    hook = added.raw["accounts"][emulator.key]["audiences"][list_id]["webhooks"][0]
    for _ in range(2):
        config = await update_webhook(store, clients, site, process="delete_webhook", hook_id=hook["id"], **ask)
    audience = config.raw["accounts"][emulator.key]["audiences"][list_id]
    assert (audience["webhooks"], audience["webhookFound"]) == ([], False)


async def test_a_batch_webhook_comes_and_goes(store: Store, clients: Clients, emulator: Emulator, site: str) -> None:
    await saved(store, clients, emulator, site)
    added = await update_webhook(store, clients, site, process="add_batch_webhook", api_key=emulator.key)
    account = added.raw["accounts"][emulator.key]
    assert account["batchWebhookFound"] is True
    hook_id = account["batchWebhooks"][0]["id"]
    gone = await update_webhook(
        store, clients, site, process="delete_batch_webhook", api_key=emulator.key, hook_id=hook_id
    )
    assert gone.raw["accounts"][emulator.key]["batchWebhooks"] == []
    assert gone.raw["accounts"][emulator.key]["batchWebhookFound"] is False


async def test_an_account_without_a_secret_has_one_before_mailchimp_tries_the_address(
    store: Store, clients: Clients, emulator: Emulator, site: str
) -> None:
    await saved(store, clients, emulator, site)
    raw = deepcopy(dict((await store.read(read_config)).raw))
    raw["accounts"][emulator.key]["batchWebhookSecret"] = ""
    await store.write(update_config, raw)
    config = await update_webhook(store, clients, site, process="add_batch_webhook", api_key=emulator.key)
    account = config.raw["accounts"][emulator.key]
    assert account["batchWebhookSecret"] in account["batchWebhook"]
    assert account["batchWebhookFound"] is True


async def test_without_a_public_address_no_webhook_can_be_added(
    store: Store, clients: Clients, emulator: Emulator
) -> None:
    list_id = await saved(store, clients, emulator)
    with pytest.raises(NoBaseUrl, match=r"set \[server\] base_url"):
        await update_webhook(store, clients, "", process="add_webhook", api_key=emulator.key, list_id=list_id)


async def test_mailchimps_own_words_say_why_a_webhook_was_refused(
    store: Store, clients: Clients, emulator: Emulator, unused_tcp_port: int
) -> None:
    list_id = await saved(store, clients, emulator)
    nobody = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(MailchimpFailed, match=r"^Mailchimp refused POST /lists/{audience}/webhooks: 400 ") as failed:
        await update_webhook(store, clients, nobody, process="add_webhook", api_key=emulator.key, list_id=list_id)
    secret = (await store.read(read_config)).account(emulator.key).secret
    assert secret not in str(failed.value)


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        pytest.param(
            {"process": "add_batch_webhook", "api_key": "nope"}, "Given API Key is not configured.", id="Unknown key."
        ),
        pytest.param({"process": "delete_batch_webhook"}, "ID missing", id="Deleting needs an id."),
        pytest.param({"process": "delete_webhook"}, "ID missing", id="So does deleting an audience's."),
        pytest.param({"process": "add_webhook"}, "Missing list_id", id="An audience's hook needs the audience."),
        pytest.param({"process": "delete_webhook", "hook_id": "1"}, "Missing list_id", id="So does deleting by id."),
        pytest.param(
            {"process": "add_webhook", "list_id": "zz"}, "List 'zz' is not configured.", id="Unknown audience."
        ),
        pytest.param(
            {"process": "bogus"},
            "process must be add_batch_webhook|delete_batch_webhook|add_webhook|delete_webhook",
            id="Unknown process.",
        ),
    ],
)
async def test_a_question_that_makes_no_sense_is_told_so(
    store: Store, clients: Clients, emulator: Emulator, question: dict[str, Any], sentence: str
) -> None:
    await saved(store, clients, emulator)
    emulator.clear_requests()
    with pytest.raises(SyncError) as failed:
        await update_webhook(store, clients, "https://x.example.org", **({"api_key": emulator.key} | question))
    assert str(failed.value) == sentence
    assert emulator.requests == []


async def test_health_says_which_webhooks_are_missing(
    store: Store, clients: Clients, emulator: Emulator, site: str
) -> None:
    list_id = await saved(store, clients, emulator, site)
    await update_webhook(store, clients, site, process="add_webhook", api_key=emulator.key, list_id=list_id)
    health = await check_webhooks(store, clients, site, [emulator.key])
    assert [(one.list_id, one.found) for one in health] == [(None, False), (list_id, True)]
    emulator.audience().hooks.clear()
    assert not any(one.found for one in await check_webhooks(store, clients, site, [emulator.key]))
