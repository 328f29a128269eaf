"""The control prefix, loading files, and the command that runs an emulator."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from sync.emulator import __main__ as command
from sync.emulator.data.exports import load
from sync.emulator.data.seeding import snapshot
from sync.emulator.model.clock import to_wire
from sync.emulator.server.running import Emulator, greeting, running_emulator
from sync.emulator.world import World
from sync.mailchimp.wire import subscriber_hash

REPOSITORY = Path(__file__).parents[2]
EXPORT = REPOSITORY.parent / "shared" / "data" / "mailchimp_export"
ADA = "ada@example.org"
LIST = "a1b2c3d4e5"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    world = World(seed=7)
    world.add_audience(list_id=LIST)
    async with running_emulator(world, control=True) as running:
        yield running


@pytest.fixture
async def control(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=emulator.root_url + "/_emulator", timeout=20) as one:
        yield one


def lines(*records: dict[str, Any]) -> bytes:
    return b"\n".join(orjson.dumps(record) for record in records)


async def test_seeding_by_json_lines_reports_bad_ones(emulator: Emulator, control: httpx.AsyncClient) -> None:
    seed = lines(
        {"kind": "account", "id": "acc", "name": "Other", "key": "a" * 32 + "-us5", "knobs": {"max_connections": 4}},
        {"kind": "audience", "id": "0123456789", "name": "Second", "double_optin": True},
        {"kind": "merge_field", "tag": "AGE", "type": "number", "required": True},
        {"kind": "interest_category", "title": "Causes", "interests": [{"id": "trees", "name": "Trees"}]},
        {
            "kind": "member",
            "email_address": ADA,
            "status": "unsubscribed",
            "unsubscribed_by": "user",
            "interests": ["trees"],
        },
        {"kind": "forgotten", "email_address": "gone@example.org"},
        {"kind": "webhook", "url": "http://127.0.0.1:9/", "events": {"subscribe": True}, "sources": {"user": True}},
        {"kind": "batch_webhook", "url": "http://127.0.0.1:9/"},
        {"kind": "nonsense"},
    )
    answer = (await control.post("/seed", content=seed + b"\nnot json\n")).json()
    assert (answer["taken"], answer["bad_count"], [one["line"] for one in answer["bad"]]) == (8, 2, [9, 10])
    member = emulator.member(ADA, "0123456789")
    assert member is not None
    assert (member.unsubscribed_by, member.interests) == ("user", {"trees"})
    assert emulator.world.account("acc").options.max_connections == 4


async def test_a_hundred_thousand_members_are_seeded_as_a_stream(
    emulator: Emulator, control: httpx.AsyncClient
) -> None:
    async def members() -> AsyncIterator[bytes]:
        for start in range(0, 100_000, 1000):
            rows = [{"kind": "member", "email_address": f"p{n}@example.org"} for n in range(start, start + 1000)]
            yield lines(*rows) + b"\n"

    answer = await control.post("/seed", content=members(), timeout=120)
    assert answer.json()["taken"] == 100_000
    assert len(emulator.audience().members) == 100_000


async def test_members_show_their_hidden_facts(emulator: Emulator, control: httpx.AsyncClient) -> None:
    await control.post("/actions/person", json={"action": "sign_up", "email": ADA})
    left = await control.post("/actions/person", json={"action": "unsubscribe", "email": ADA, "list": LIST})
    assert left.json()["member"]["unsubscribed_by"] == "user"
    await control.post("/actions/admin", json={"action": "archive", "email": ADA})
    shown = (await control.get("/members", params={"list": LIST, "email": "ADA@example.org"})).json()["members"]
    assert [(one["status"], one["archived_from"]) for one in shown] == [("archived", "unsubscribed")]
    assert (await control.get("/members")).json()["total_items"] == 1
    deleted = await control.post("/actions/admin", json={"action": "delete_permanently", "email": ADA})
    assert deleted.json() == {"member": None}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/actions/person", {"action": "dance", "email": ADA}),
        ("POST", "/actions/person", {"email": ADA}),
        ("POST", "/actions/admin", {"action": "import", "email": "nonsense"}),
        ("PUT", "/knobs", {"nope": 1}),
        ("POST", "/faults", {"action": "explode"}),
        ("POST", "/clock", {"advance": -1}),
        ("POST", "/generate", {"members": 1, "list": "ffffffffff"}),
        ("PUT", "/state", {"records": []}),
        ("PUT", "/knobs", []),
    ],
)
async def test_what_is_wrong_is_said(control: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    answer = await control.request(method, path, json=body)
    assert (answer.status_code, bool(answer.json()["error"])) == (400, True)


async def test_options_faults_and_clock(emulator: Emulator, control: httpx.AsyncClient) -> None:
    account = emulator.world.default_account
    assert (await control.put("/knobs", json={"since_inclusive": True})).json()["since_inclusive"] is True
    await control.put("/knobs", params={"account": account.id}, json={"max_connections": 2})
    assert (await control.get("/knobs")).json()["max_connections"] == 2
    await control.post("/faults", json={"action": "500", "count": 3})
    assert [rule.count for rule in account.options.fault_rules] == [3]
    await control.delete("/faults")
    assert account.options.fault_rules == []
    moved = await control.post(
        "/clock", json={"set": "2026-01-09T12:00:00+00:00", "freeze": True, "advance": 5, "skew": 2}
    )
    assert moved.json() == {"now": "2026-01-09T12:00:07+00:00", "frozen": True, "rate": 1.0, "skew": 2.0}
    assert (await control.post("/clock", json={"freeze": False, "rate": 60})).json()["rate"] == 60.0


async def test_batches_hooks_requests_and_metrics_can_be_looked_at(
    emulator: Emulator, control: httpx.AsyncClient
) -> None:
    emulator.configure(auto_batches=False, auto_webhooks=False)
    async with httpx.AsyncClient(base_url=emulator.base_url, auth=("x", emulator.key)) as api:
        await api.post("/batches", json={"operations": [{"method": "GET", "path": "/ping"}]})
        await api.get("/nowhere")
    assert [batch["left"] for batch in (await control.get("/batches")).json()["batches"]] == [1]
    await control.post("/run")
    assert [batch["status"] for batch in (await control.get("/batches")).json()["batches"]] == ["finished"]
    assert (await control.get("/webhook-deliveries")).json() == {"deliveries": []}
    found = (await control.get("/requests", params={"status": "404", "path": "nowhere"})).json()["requests"]
    assert len(found) == 1
    metrics = (await control.get("/metrics")).text
    assert 'emulator_requests_total{status="404"} 1' in metrics
    await control.delete("/requests")
    assert (await control.get("/requests")).json()["requests"] == []


async def test_state_goes_out_and_in_and_reset_empties(emulator: Emulator, control: httpx.AsyncClient) -> None:
    await control.post("/generate", json={"members": 50, "seed": 1, "shares": {"archived": 500}})
    state = (await control.get("/state")).json()
    reset = await control.post("/reset")
    assert reset.json() == {"key": emulator.key}
    assert emulator.world.default_account.audiences == {}
    await control.put("/state", json=state)
    assert len(emulator.audience(LIST).members) == 50
    assert {one["kind"] for one in state["records"]} == {"clock", "account", "audience", "member"}


def test_mailchimps_export_is_read(tmp_path: Path) -> None:
    if not EXPORT.exists():
        pytest.skip(f"No export at {EXPORT}")
    world = World()
    loaded = load(world, EXPORT)
    audience = world.find_audience("9f2c1e7d44")[1]
    counts = audience.members.counts
    assert (loaded.members, loaded.bad) == (len(audience.members), [])
    assert (counts["subscribed"], counts["unsubscribed"], counts["cleaned"]) == (105, 25, 4)
    member = audience.members.find_address("norrisj53@mymail.co.uk")
    assert member is not None
    assert (member.merges, member.rating, to_wire(member.last_changed)) == (
        {"FNAME": "Norris", "LNAME": "Jensen"},
        3,
        "2025-08-20T11:16:48+00:00",
    )
    assert audience.members.web_id(member) == 82201136
    assert "Volunteer" in {tag.name for tag in audience.tags.values()}


HEADING = "Email Address,First Name,Shoe Size,LAST_CHANGED,LEID,EUID,UNSUB_REASON,LATITUDE,NOTES,TAGS\n"


def test_bad_rows_are_reported_with_file_line_and_reason(tmp_path: Path) -> None:
    name = "unsubscribed_members_export_00000000ff.csv"
    rows = [
        'ada@example.org,Ada,7,2026-01-09 12:00:00,7,abc,Unsubscribed by admin,1.5,hello,"""A"",""B, C"""',
        "no address,,,2026-01-09 12:00:00,,,,,,",
        "b@example.org,,,long ago,,,,,,",
        "ADA@example.org,,,2026-01-09 12:00:00,,,,,,",
        "too,few",
        "c@example.org,,,2026-01-09 12:00:00,,,No reason,,,",
    ]
    (tmp_path / name).write_text(HEADING + "\n".join(rows) + "\n")
    world = World()
    loaded = load(world, tmp_path)
    assert loaded.members == 2
    assert [str(row).partition(":")[2].partition(":")[0] for row in loaded.bad] == ["3", "4", "5", "6"]
    assert str(loaded.bad[1]) == f"{name}:4: LAST_CHANGED is not a time: 'long ago'"
    audience = world.find_audience("00000000ff")[1]
    ada, carl = (audience.members.find_address(email) for email in (ADA, "c@example.org"))
    assert ada is not None
    assert carl is not None
    assert (ada.unsubscribed_by, carl.unsubscribed_by) == ("admin", "user")
    assert ada.merges == {"FNAME": "Ada", "SHOESIZE": "7"}
    assert {audience.tags[key].name for key in ada.tags or ()} == {"A", "B, C"}


def test_snapshots_and_seeds_are_told_apart(tmp_path: Path) -> None:
    world = World()
    world.add_audience(list_id=LIST)
    load_me = tmp_path / "seed.jsonl"
    load_me.write_bytes(lines({"kind": "member", "email_address": ADA}, {"kind": "member"}) + b"\nnonsense\n")
    loaded = load(world, load_me)
    assert (loaded.members, [row.line for row in loaded.bad]) == (1, [2, 3])
    saved = tmp_path / "state.json"
    saved.write_bytes(orjson.dumps(snapshot(world)))
    other = World()
    assert load(other, saved).members == 1
    assert other.find_audience(LIST)[1].members.find(subscriber_hash(ADA)) is not None
    with pytest.raises(ValueError, match="no Mailchimp export"):
        load(other, tmp_path)
    with pytest.raises(ValueError, match="is not named like"):
        load(other, tmp_path / "list.csv")


def test_the_command_says_why_it_cannot_start(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--load", str(tmp_path / "absent.json")]) == 2
    assert command.main(["--key", "nodatacentre"]) == 2
    assert "cannot start" in capsys.readouterr().err


def test_a_prepared_world_has_an_audience_and_the_members_asked_for() -> None:
    world = command.prepare(members=30, seed=2, key="b" * 32 + "-us9")
    assert (len(world.find_audience()[1].members), world.key, world.default_account.dc) == (
        30,
        "b" * 32 + "-us9",
        "us9",
    )


async def test_the_greeting_names_url_key_and_audiences(emulator: Emulator) -> None:
    text = "\n".join(greeting(emulator, control=True))
    for part in (emulator.base_url, emulator.key, LIST, "/_emulator/"):
        assert part in text


async def test_the_command_runs_until_it_is_told_to_stop() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sync.emulator",
        "--port",
        "0",
        "--members",
        "5",
        "--control",
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            first = (await process.stdout.readline()).decode()
            second = (await process.stdout.readline()).decode()
            url, key = re.findall(r"http\S+", first)[0], second.rsplit(maxsplit=1)[-1]
            async with httpx.AsyncClient(auth=("x", key)) as client:
                assert (await client.get(url + "/lists")).json()["lists"][0]["stats"]["merge_field_count"] == 4
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
