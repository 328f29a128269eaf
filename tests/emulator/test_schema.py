"""Every answer held against Mailchimp's published description, and Mailchimp's own Python client against the emulator.

The description may not be copied here; it is read from beside the repository, and the tests skip where it is absent.
Formats are not asserted: Mailchimp itself sends ``""`` for a time that is not there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from mailchimp_marketing import Client
from mailchimp_marketing.api_client import ApiClientError

from sync.emulator.endpoints.routes import ROUTES
from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.protocol import schemas
from sync.emulator.protocol.problems import Problem
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World
from sync.mailchimp.wire import subscriber_hash

DESCRIPTION = Path(__file__).parents[3] / "shared" / "contract" / "mailchimp-openapi.json"
NOT_DESCRIBED = ("campaigns", "reports")
"""Routes that the reduced description leaves out; Mailchimp's own client calls them in ``test_campaigns.py``."""
ADA = "ada@example.org"
HASH = subscriber_hash(ADA)
LIST = "a1b2c3d4e5"
AUDIENCE = f"/lists/{LIST}"
HOOK = {"url": "http://127.0.0.1:9/hook"}
MEMBER = {"email_address": ADA, "status_if_new": "subscribed", "merge_fields": {"FNAME": "Ada"}, "status": "subscribed"}


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    if not DESCRIPTION.exists():
        pytest.skip(f"Mailchimp's API description is not at {DESCRIPTION}; it may not be copied into the repository")
    loaded: dict[str, Any] = json.loads(DESCRIPTION.read_text())
    return loaded


@pytest.fixture
async def emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    world = World(seed=7)
    world.add_audience(list_id=LIST)
    async with running_emulator(world) as running:

        async def answers(url: str) -> bool:
            return True

        monkeypatch.setattr(running.gateway.worker, "answers_get", answers)
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=emulator.base_url, auth=("any", emulator.key), timeout=20) as one:
        yield one


STORY: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/ping", None),
    ("GET", "/lists?include_total_contacts=true", None),
    ("GET", AUDIENCE, None),
    ("POST", f"{AUDIENCE}/members", {"email_address": "b@example.org", "status": "subscribed", "tags": ["T"]}),
    ("PUT", f"{AUDIENCE}/members/{HASH}", MEMBER),
    ("PATCH", f"{AUDIENCE}/members/{HASH}", {"vip": True, "location": {"latitude": 1.5, "longitude": 2.5}}),
    ("GET", f"{AUDIENCE}/members/{HASH}", None),
    ("GET", f"{AUDIENCE}/members", None),
    (
        "POST",
        AUDIENCE,
        {"members": [{"email_address": "c@example.org", "status": "subscribed"}, {"email_address": "x"}]},
    ),
    ("POST", f"{AUDIENCE}/members/{HASH}/tags", {"tags": [{"name": "Volunteers", "status": "active"}]}),
    ("GET", f"{AUDIENCE}/members/{HASH}/tags", None),
    ("GET", f"{AUDIENCE}/tag-search?name=vol", None),
    ("POST", f"{AUDIENCE}/segments", {"name": "Static", "static_segment": [ADA]}),
    ("GET", f"{AUDIENCE}/segments", None),
    ("GET", f"{AUDIENCE}/segments/<id>", None),
    ("DELETE", f"{AUDIENCE}/segments/<id>", None),
    ("POST", f"{AUDIENCE}/merge-fields", {"name": "Shoe size", "type": "number", "tag": "shoe", "options": {}}),
    ("GET", f"{AUDIENCE}/merge-fields", None),
    ("GET", f"{AUDIENCE}/merge-fields/<merge_id>", None),
    ("PATCH", f"{AUDIENCE}/merge-fields/<merge_id>", {"name": "Shoes", "tag": "SHOES", "required": True}),
    ("DELETE", f"{AUDIENCE}/merge-fields/<merge_id>", None),
    ("POST", f"{AUDIENCE}/interest-categories", {"title": "Causes", "type": "checkboxes"}),
    ("GET", f"{AUDIENCE}/interest-categories", None),
    ("GET", f"{AUDIENCE}/interest-categories/<category>", None),
    ("PATCH", f"{AUDIENCE}/interest-categories/<category>", {"title": "Good causes", "type": "radio"}),
    ("POST", f"{AUDIENCE}/interest-categories/<category>/interests", {"name": "Trees"}),
    ("GET", f"{AUDIENCE}/interest-categories/<category>/interests", None),
    ("GET", f"{AUDIENCE}/interest-categories/<category>/interests/<id>", None),
    ("PATCH", f"{AUDIENCE}/interest-categories/<category>/interests/<id>", {"name": "Woods", "display_order": 3}),
    ("GET", f"{AUDIENCE}/members", None),
    ("DELETE", f"{AUDIENCE}/interest-categories/<category>/interests/<id>", None),
    ("DELETE", f"{AUDIENCE}/interest-categories/<category>", None),
    ("POST", f"{AUDIENCE}/webhooks", HOOK | {"events": {"subscribe": True}, "sources": {"user": True}}),
    ("GET", f"{AUDIENCE}/webhooks", None),
    ("GET", f"{AUDIENCE}/webhooks/<id>", None),
    ("PATCH", f"{AUDIENCE}/webhooks/<id>", {"events": {"profile": True}, "url": "http://127.0.0.1:9/other"}),
    ("DELETE", f"{AUDIENCE}/webhooks/<id>", None),
    ("POST", "/batch-webhooks", HOOK),
    ("GET", "/batch-webhooks", None),
    ("GET", "/batch-webhooks/<id>", None),
    ("PATCH", "/batch-webhooks/<id>", {"enabled": False}),
    ("DELETE", "/batch-webhooks/<id>", None),
    ("POST", "/batches", {"operations": [{"method": "GET", "path": "/ping"}]}),
    ("GET", "/batches", None),
    ("GET", "/batches/<id>", None),
    ("DELETE", "/batches/<id>", None),
    ("DELETE", f"{AUDIENCE}/members/{HASH}", None),
    ("GET", f"{AUDIENCE}/members?status=archived", None),
    ("POST", f"{AUDIENCE}/members/{HASH}/actions/delete-permanent", None),
]


async def tell(client: httpx.AsyncClient) -> list[tuple[str, str, httpx.Response]]:
    """Send the story; ``<id>`` is the id last given by a POST, ``<category>`` that of the category."""
    known: dict[str, str] = {}
    told = []
    for method, path, body in STORY:
        for name, value in known.items():
            path = path.replace(f"<{name}>", value)
        answer = await client.request(method, path, json=body)
        assert answer.status_code in (200, 204), (method, path, answer.text)
        if method == "POST" and answer.content:
            made = answer.json()
            known |= {name: str(made[name]) for name in ("id", "merge_id") if name in made}
            if path.endswith("/interest-categories"):
                known["category"] = made["id"]
        told.append((method, path, answer))
    return told


def described(description: dict[str, Any], method: str, path: str) -> dict[str, Any] | None:
    """Return the schema of the 200 that *method* on *path* gives; None where none is described."""
    steps = path.partition("?")[0].strip("/").split("/")
    for pattern, verbs in description["paths"].items():
        parts = pattern.strip("/").split("/")
        if len(parts) == len(steps) and all(p.startswith("{") or p == s for p, s in zip(parts, steps, strict=True)):
            schema: dict[str, Any] | None = verbs[method.lower()]["responses"].get("200", {}).get("schema")
            return schema
    raise AssertionError(f"{method} {path} is not in the description")


async def test_every_answer_fits_the_published_description(
    client: httpx.AsyncClient, description: dict[str, Any]
) -> None:
    for method, path, answer in await tell(client):
        schema = described(description, method, path)
        assert (answer.status_code == 204) == (schema is None), (method, path)
        if schema is not None:
            whole = {**schema, "definitions": description["definitions"]}
            found = [
                f"{'.'.join(map(str, e.absolute_path))}: {e.message}"
                for e in jsonschema.Draft4Validator(whole).iter_errors(answer.json())
            ]
            assert found == [], (method, path)


async def test_problem_documents_fit_the_published_description(
    client: httpx.AsyncClient, description: dict[str, Any]
) -> None:
    whole = {"$ref": "#/definitions/ProblemDetailDocument", "definitions": description["definitions"]}
    asked = [("GET", "/nowhere"), ("DELETE", "/lists"), ("POST", f"{AUDIENCE}/members"), ("GET", "/lists?count=9999")]
    for method, path in asked:
        answer = await client.request(method, path)
        assert answer.status_code >= 400
        jsonschema.Draft4Validator(whole).validate(answer.json())


async def test_the_story_uses_every_route(client: httpx.AsyncClient) -> None:
    def pattern(path: str) -> str:
        path = path.partition("?")[0].strip("/")
        ids = {LIST, HASH, "<id>", "<merge_id>", "<category>"}
        return "/".join("{}" if step in ids else step for step in path.split("/"))

    told = {(method, pattern(path)) for method, path, _ in STORY}
    described = {
        (method, path) for path, verbs in ROUTES.items() for method in verbs if not path.startswith(NOT_DESCRIBED)
    }
    assert told == described


def test_the_description_has_no_route_that_we_lack(description: dict[str, Any]) -> None:
    def pattern(path: str) -> str:
        return "/".join("{}" if step.startswith("{") else step for step in path.strip("/").split("/"))

    theirs = {(pattern(path), verb.upper()) for path, verbs in description["paths"].items() for verb in verbs}
    ours = {(path, verb) for path, verbs in ROUTES.items() for verb in verbs}
    assert theirs - ours - {(path, "PARAMETERS") for path, _ in theirs} == set()


BODIES: list[tuple[str, str, str]] = [
    ("member_create", "/lists/{list_id}/members", "post"),
    ("tags", "/lists/{list_id}/members/{subscriber_hash}/tags", "post"),
    ("merge_field_create", "/lists/{list_id}/merge-fields", "post"),
    ("category_create", "/lists/{list_id}/interest-categories", "post"),
    ("interest_create", "/lists/{list_id}/interest-categories/{interest_category_id}/interests", "post"),
    ("batch_hook_create", "/batch-webhooks", "post"),
    ("batch", "/batches", "post"),
    ("bulk", "/lists/{list_id}", "post"),
    ("segment", "/lists/{list_id}/segments", "post"),
]


@pytest.mark.parametrize(("name", "path", "verb"), BODIES, ids=[row[0] for row in BODIES])
def test_our_request_schemas_ask_for_what_the_description_requires(
    description: dict[str, Any], name: str, path: str, verb: str
) -> None:
    body = next(one for one in description["paths"][path][verb]["parameters"] if one.get("in") == "body")
    theirs = body["schema"]
    if "$ref" in theirs:
        theirs = description["definitions"][theirs["$ref"].rpartition("/")[2]]
    ours = schemas.SCHEMAS[name]
    assert set(ours["required"]) == set(theirs.get("required", []))
    assert set(ours["properties"]) - set(theirs["properties"]) <= {"status_if_new", "tags"}
    for field in ("status", "type"):
        if field in theirs["properties"]:
            assert set(ours["properties"][field]["enum"]) == set(theirs["properties"][field]["enum"])


def official(emulator: Emulator) -> Client:
    """Return Mailchimp's client, pointed at the emulator: its host is a plain attribute."""
    client = Client({"api_key": emulator.key})
    client.api_client.host = emulator.base_url
    client.set_config({"api_key": emulator.key, "server": "us1"})
    return client


async def test_mailchimps_own_client_is_content(emulator: Emulator) -> None:
    await asyncio.to_thread(official_story, official(emulator), emulator.audience())


def official_story(client: Client, audience: EmulatedAudience) -> None:
    assert client.ping.get() == {"health_status": "Everything's Chimpy!"}
    assert client.root.get_root()["account_name"] == "Demo"
    assert client.lists.get_all_lists()["lists"][0]["id"] == LIST
    made = client.lists.set_list_member(LIST, HASH, MEMBER, skip_merge_validation=True)
    assert made["merge_fields"]["FNAME"] == "Ada"
    client.lists.update_list_member_tags(LIST, HASH, {"tags": [{"name": "T", "status": "active"}]})
    assert client.lists.get_list_member_tags(LIST, HASH)["tags"][0]["name"] == "T"
    page = client.lists.get_list_members_info(LIST, count=1000, fields=["members.email_address", "total_items"])
    assert page == {"members": [{"email_address": ADA}], "total_items": 1}
    batch = client.batches.start({"operations": [{"method": "GET", "path": "/lists", "operation_id": "1"}]})
    assert client.batches.status(batch["id"])["id"] == batch["id"]
    client.lists.delete_list_member(LIST, HASH)
    assert audience.members.counts["archived"] == 1
    with pytest.raises(ApiClientError) as caught:
        client.lists.add_list_member(LIST, {"email_address": "x"})
    assert caught.value.status_code == 400


WRONG: list[tuple[str, Any, list[tuple[str, str]]]] = [
    ("tags", {"tags": [{"name": "T"}]}, [("", "Required fields were not provided: tags.0.status")]),
    ("tags", {"tags": [{"name": "T", "status": "on"}]}, [("tags.0.status", "Value must be one of: inactive, active")]),
    ("batch", {"operations": {}}, [("operations", "Schema describes array, object found instead")]),
    ("merge_field_change", {"tag": "FAR_TOO_LONG"}, [("tag", "Value may have at most 10 characters")]),
    ("member_change", {"timestamp_opt": "soon"}, [("timestamp_opt", "This value is not valid.")]),
]


@pytest.mark.parametrize(("name", "body", "expected"), WRONG)
def test_what_schema_errors_say(name: str, body: Any, expected: list[tuple[str, str]]) -> None:
    with pytest.raises(Problem) as caught:
        schemas.check(name, body)
    assert [(error["field"], error["message"]) for error in caught.value.errors or []] == expected


GOOD: list[tuple[str, Any]] = [("member_change", {}), ("batch", {"operations": []}), ("hook_create", HOOK)]


@pytest.mark.parametrize(("name", "body"), GOOD)
def test_good_bodies_pass(name: str, body: Any) -> None:
    check: Callable[[str, Any], None] = schemas.check
    check(name, body)
