"""Checking a key, saving a configuration and mending webhooks, by the real client against the emulator."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import stamina
from aiohttp import web
from sqlalchemy import insert, select

from civiapi.store.engine import Store
from civiapi.store.site_settings import read_setting
from civiapi.store.tables import group
from sync.accounts import fetch_account_info, update_config, update_webhook, webhook_health
from sync.clients import Clients
from sync.config import SETTING, read_config
from sync.errors import MailchimpFailed, NoBaseUrl, SyncError
from sync.mailchimp.emulator.model import Interest, InterestCategory
from sync.mailchimp.emulator.running import Emulator, running_emulator
from sync.tables import batch, cache, claim, member, run, status, update

OTHER_KEY = "ffffffffffffffffffffffffffffffff-us1"


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with running_emulator() as running:
        yield running


@pytest.fixture
async def clients(emulator: Emulator) -> AsyncIterator[Clients]:
    pool = Clients(base_url=emulator.root_url)
    yield pool
    await pool.close()


@pytest.fixture
async def site(aiohttp_server: Callable[..., Any]) -> str:
    """A site that answers Mailchimp's trial calls; its address."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="OK")

    app = web.Application()
    app.router.add_get("/civicrm/mailchimpsync/{page}", answer)
    server = await aiohttp_server(app)
    return str(server.make_url("/"))


async def saved(store: Store, clients: Clients, emulator: Emulator, base_url: str = "https://crm.example.org") -> str:
    """A configuration as the Config screen saves it: one account, its audience linked with group 1. The list id."""
    found = await fetch_account_info(store, clients, base_url, emulator.key)
    list_id = emulator.audience().id
    await store.write(lambda conn: conn.execute(insert(group).values(name="n", title="News")) and None)
    link = {"apiKey": emulator.key, "subscriptionGroup": 1, "interests": {}}
    config = {"accounts": {emulator.key: found | {"apiKey": emulator.key}}, "lists": {list_id: link}}
    await store.write(update_config, config)
    return list_id


def with_interests(emulator: Emulator) -> None:
    audience = emulator.audience()
    audience.categories["c1"] = InterestCategory(
        id="c1", title="Topics", interests={"i1": Interest("i1", "c1", "Trees"), "i2": Interest("i2", "c1", "Bees")}
    )


# Looking at an account


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


# Saving a configuration


async def test_what_belonged_to_a_removed_list_is_deleted_and_the_rest_stays(
    store: Store, clients: Clients, emulator: Emulator
) -> None:
    list_id = await saved(store, clients, emulator)

    def fill(conn: Any) -> None:
        for number, name in enumerate([list_id, "other"], 1):
            conn.execute(insert(cache).values(id=number, mailchimp_list_id=name))
            conn.execute(insert(batch).values(id=number, mailchimp_list_id=name))
            conn.execute(insert(update).values(id=number, mailchimpsync_cache_id=number, data="{}"))
            conn.execute(insert(status).values(list_id=name, data=b"a:0:{}"))
            conn.execute(insert(run).values(list_id=name))
            conn.execute(insert(member).values(cache_id=number))
            conn.execute(insert(claim).values(name=name, holder="h", fence=1, expires_ms=2**50))

    await store.write(fill)
    await store.write(update_config, (await store.read(read_config)).raw)
    left = {
        table.name: await store.read(lambda conn, column=column: conn.execute(select(column)).scalars().all())
        for table, column in [
            (cache, cache.c.mailchimp_list_id),
            (batch, batch.c.mailchimp_list_id),
            (update, update.c.id),
            (status, status.c.list_id),
            (run, run.c.list_id),
            (member, member.c.cache_id),
        ]
    }
    assert left == {
        "civicrm_mailchimpsync_cache": [list_id],
        "civicrm_mailchimpsync_batch": [list_id],
        "civicrm_mailchimpsync_update": [1],
        "civicrm_mailchimpsync_status": [list_id],
        "civiapi_run": [list_id],
        "civiapi_member": [1],
    }
    claims = await store.read(lambda conn: {row.name: row.expires_ms for row in conn.execute(select(claim))})
    assert claims == {list_id: 2**50, "other": 0}, "a sync at work on the removed list has lost its claim"


async def test_a_group_that_is_not_there_is_refused_and_nothing_changes(
    store: Store, clients: Clients, emulator: Emulator
) -> None:
    list_id = await saved(store, clients, emulator)
    raw = dict((await store.read(read_config)).raw)
    bad = raw | {"lists": {list_id: {"apiKey": emulator.key, "subscriptionGroup": 99}}}
    with pytest.raises(SyncError, match=r"linked with group 99, which does not exist"):
        await store.write(update_config, bad)
    assert (await store.read(read_config)).raw == raw


async def test_a_smart_group_is_refused_with_the_reason(store: Store, clients: Clients, emulator: Emulator) -> None:
    list_id = await saved(store, clients, emulator)
    smart = insert(group).values(id=7, name="s", title="Smart", saved_search_id=1)
    await store.write(lambda conn: conn.execute(smart) and None)
    raw = dict((await store.read(read_config)).raw)
    raw["lists"] = {list_id: {"apiKey": emulator.key, "subscriptionGroup": "7"}}
    with pytest.raises(SyncError, match=r"a smart group"):
        await store.write(update_config, raw)


# Webhooks


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
    raw = dict((await store.read(read_config)).raw)
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
    health = await webhook_health(store, clients, site)
    assert [(one.list_id, one.found) for one in health] == [(None, False), (list_id, True)]
    emulator.audience().hooks.clear()
    assert not any(one.found for one in await webhook_health(store, clients, site))
