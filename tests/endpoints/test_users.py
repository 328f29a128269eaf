"""Users of the settings: the contacts behind their keys, and how many guesses a client has."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from civiapi.auth.authenticator import KEY_HOLDER_PERMISSIONS, Auth, AuthenticationFailed, Credentials
from civiapi.auth.login_throttle import FREE, Throttle
from civiapi.settings import UserSettings
from civiapi.store.civicrm import users as rows
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact, uf_match
from tests.support.http_server import (
    ADMIN,
    ADMIN_KEY,
    LIMITED,
    SITE_KEY,
    USERS,
    HttpServer,
    Mirror,
    serving,
)

PATH = "/civicrm/ajax/rest"
ID = "/civicrm/authx/id"
CALL = {"entity": "Contact", "action": "get", "json": "1"}


def _add_contact(conn: Connection, **values: Any) -> int:
    key = conn.execute(insert(contact).values(contact_type="Individual", **values)).inserted_primary_key
    assert key is not None
    return int(key[0])


async def _admin_id(site: HttpServer) -> int:
    return int((await site.get(ID, headers=ADMIN)).json["contact_id"])


async def test_a_user_s_contact_is_made_once_and_kept_over_restarts(store: Store, mirror: Mirror) -> None:
    seen = []
    for _ in range(2):
        async with serving(store, mirror) as site:
            seen.append((await site.get(ID, headers=ADMIN)).json)
    assert seen[0] == seen[1]
    names = await store.read(lambda conn: conn.execute(select(contact.c.display_name)).scalars().all())
    assert names == ["admin"]


async def test_a_user_of_a_given_contact_is_that_contact(store: Store, mirror: Mirror) -> None:
    contact_id = await store.write(_add_contact, display_name="Ada")
    users = (UserSettings("ada", "ada-key", LIMITED, contact_id),)
    async with serving(store, mirror, users=users) as site:
        await site.post(PATH, data={**CALL, "key": SITE_KEY, "api_key": "ada-key"})
        assert mirror.last.caller.contact_id == contact_id


async def test_a_user_of_a_contact_that_is_not_there_is_refused(store: Store, mirror: Mirror) -> None:
    users = (UserSettings("ada", "ada-key", LIMITED, 4711),)
    async with serving(store, mirror, users=users) as site:
        reply = await site.post("/extern/rest.php", data={**CALL, "key": SITE_KEY, "api_key": "ada-key"})
        assert reply.json == {"error_message": "Contact ID 4711 is invalid", "is_error": 1}


async def test_a_key_in_the_database_gives_the_least(store: Store, site: HttpServer, mirror: Mirror) -> None:
    contact_id = await store.write(_add_contact, display_name="Ada", api_key="AdasOwnKey")
    await site.post("/extern/rest.php", data={**CALL, "key": SITE_KEY, "api_key": "AdasOwnKey"})
    assert mirror.last.caller.contact_id == contact_id
    assert mirror.last.caller.permissions == KEY_HOLDER_PERMISSIONS


async def test_a_key_in_the_database_of_a_user_s_contact_gives_what_the_user_may(store: Store, mirror: Mirror) -> None:
    contact_id = await store.write(_add_contact, display_name="Ada", api_key="AdasOwnKey")
    users = (UserSettings("ada", "ada-key", frozenset({"edit groups"}), contact_id),)
    async with serving(store, mirror, users=users) as site:
        await site.post("/extern/rest.php", data={**CALL, "key": SITE_KEY, "api_key": "AdasOwnKey"})
    assert mirror.last.caller.permissions == {"edit groups"}


async def test_nobody_becomes_a_user_by_taking_over_names(store: Store, site: HttpServer, mirror: Mirror) -> None:
    """Editing a contact (its name, identifier, source) never makes it stand for a user of the settings."""
    await _admin_id(site)
    await store.write(
        _add_contact, display_name="admin", external_identifier="admin", source="civiapi user", api_key="MyOwnKey"
    )
    await site.post("/extern/rest.php", data={**CALL, "key": SITE_KEY, "api_key": "MyOwnKey"})
    assert mirror.last.caller.permissions == KEY_HOLDER_PERMISSIONS


@pytest.mark.parametrize(
    ("values", "key"),
    [({"api_key": "TheKey"}, "thekey"), ({"api_key": "TheKey", "is_deleted": 1}, "TheKey"), ({"api_key": ""}, "")],
    ids=["in another case", "of a contact in the trash", "that is empty"],
)
async def test_a_key_in_the_database_that_does_not_count(
    store: Store, site: HttpServer, mirror: Mirror, values: dict[str, Any], key: str
) -> None:
    await store.write(_add_contact, display_name="Ada", **values)
    reply = await site.post("/extern/rest.php", data={**CALL, "key": SITE_KEY, "api_key": key})
    assert reply.json["is_error"] == 1
    assert mirror.calls == []


async def test_a_key_that_two_contacts_have_says_nothing(store: Store, site: HttpServer, mirror: Mirror) -> None:
    for name in ("Ada", "Eve"):
        await store.write(_add_contact, display_name=name, api_key="shared")
    await site.post("/extern/rest.php", data={**CALL, "key": SITE_KEY, "api_key": "shared"})
    assert mirror.calls == []


async def test_where_a_cms_keeps_accounts_we_make_none(store: Store) -> None:
    contact_id = await store.write(_add_contact, display_name="Cms")
    account = insert(uf_match).values(domain_id=1, uf_id=5, uf_name="cms", contact_id=contact_id)
    await store.write(lambda conn: conn.execute(account) and None)
    made = await store.write(rows.contact_of_user, "admin", store.clock.now())
    assert await store.read(rows.find_uf_id, made) is None


# ---- guessing ----


async def test_without_a_site_key_nobody_comes_in_by_keys(store: Store, mirror: Mirror) -> None:
    async with serving(store, mirror, site_key="") as site:
        reply = await site.post("/extern/rest.php", data={**CALL, "key": "", "api_key": ADMIN_KEY})
        assert reply.json["error_message"] == "Failed to authenticate key"


async def test_who_keeps_guessing_waits_before_anything_is_compared(store: Store) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    auth = Auth(store, SITE_KEY, USERS, Throttle(sleep, lambda: 0.0))
    guess = Credentials("203.0.113.9", key=SITE_KEY, api_key="guess")
    for _ in range(FREE + 3):
        with pytest.raises(AuthenticationFailed):
            await auth.by_key(guess)
    assert len(waits) == 3
    await auth.by_key(replace(guess, api_key=ADMIN_KEY))
    assert len(waits) == 4, "a right guess too"
    await auth.by_key(replace(guess, api_key=ADMIN_KEY, address="203.0.113.10"))
    assert len(waits) == 4, "but nobody else"
    with pytest.raises(AuthenticationFailed, match="try again") as refusal:
        await auth.by_key(replace(guess, api_key=ADMIN_KEY, with_large_body=True))
    assert refusal.value.retry_after > 0
    assert len(waits) == 4


async def test_a_missing_key_is_no_guess(store: Store) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    auth = Auth(store, SITE_KEY, USERS, Throttle(sleep, lambda: 0.0))
    for _ in range(FREE + 3):
        with pytest.raises(AuthenticationFailed):
            await auth.by_key(Credentials("203.0.113.9"))
    assert waits == []


async def test_nothing_that_is_shown_can_be_read_from_its_text() -> None:
    shown = Credentials("203.0.113.9", key="SECRET", api_key="SECRET", x_civi_auth="SECRET", session="SECRET")
    assert "SECRET" not in repr(shown)


async def test_a_user_whose_contact_was_deleted_for_good_gets_another(store: Store) -> None:
    first = await store.write(rows.contact_of_user, "admin", store.clock.now())
    await store.write(lambda conn: conn.execute(contact.delete().where(contact.c.id == first)) and None)
    assert await store.write(rows.contact_of_user, "admin", store.clock.now()) > first


async def test_a_user_keeps_its_contact_when_that_is_renamed(store: Store) -> None:
    first = await store.write(rows.contact_of_user, "admin", store.clock.now())
    await store.write(lambda conn: conn.execute(update(contact).values(first_name="Root")) and None)
    assert await store.write(rows.contact_of_user, "admin", store.clock.now()) == first
