"""One fault is one finding, whoever shows it: ``civiapi doctor``, ``System.check``, ``civiapi adopt``, the sync."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import stamina
from sqlalchemy import Connection, delete, update

from civiapi.api.call import SYSTEM, Call
from civiapi.app import App, open_app
from civiapi.maintenance.adopt import survey
from civiapi.maintenance.doctor import examine
from civiapi.settings import load_settings
from civiapi.store.schema.tables import group, job
from sync.connections import webhook_health
from sync.store.runs import checkpoints
from tests.support.linked_site import GROUP, TREES_GROUP, link
from tests.support.processes import write_settings

LIST = "a1b2c3d4e5"
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    """A Mailchimp that cannot be reached is asked again at once."""
    with stamina.set_testing(True, attempts=2):
        yield


def link_audience(conn: Connection) -> None:
    link(conn, "0123456789abcdef0123456789abcdef-us1", LIST, {"abc": str(TREES_GROUP)})


async def shown(app: App) -> dict[str, dict[str, tuple[str, str]]]:
    """Severity and sentence of each finding that is not OK, by code, as the doctor and as System.check show it."""
    answer: Any = await app.api.respond(Call("System", "check", {"sequential": 1}, SYSTEM))
    doctor = [one async for one in examine(app) if not one.ok]
    return {
        "doctor": {one.code: (one.severity.name.lower(), f"{one.sentence} {one.remedy}".strip()) for one in doctor},
        "check": {row["name"]: (row["severity"], row["message"]) for row in answer["values"]},
    }


@pytest.mark.parametrize("fault", ["which does not exist", "a smart group"])
async def test_a_group_that_cannot_be_used_is_the_same_finding_everywhere_and_why_the_sync_stops(
    tmp_path: Path, fault: str
) -> None:
    async with open_app(load_settings(write_settings(tmp_path, mailchimp=UNREACHABLE), {})) as app:
        await app.store.write(link_audience)
        broken = update(group).values(saved_search_id=4) if "smart" in fault else delete(group)
        await app.store.write(lambda conn: conn.execute(broken) and None)
        found = await shown(app)
        adopt = await app.store.read(survey, app.store.clock, datetime.now(UTC), app.settings)
        for code, severity in (
            (f"mailchimpsyncGroup:{LIST}", "error"),
            (f"mailchimpsyncInterest:{LIST}:abc", "warning"),
        ):
            [listed] = [one for section in adopt for one in section.findings if one.code == code]
            message = f"{listed.sentence} {listed.remedy}"
            assert fault in message
            assert found["doctor"][code] == found["check"][code] == (severity, message)
        stopped: Any = await app.api.respond(Call("Mailchimpsync", "fetchandreconcile", {"group_id": GROUP}, SYSTEM))
        assert f"linked with group {GROUP}, {fault}" in stopped["error_message"]


async def test_what_system_check_finds_the_doctor_finds_too(tmp_path: Path) -> None:
    async with open_app(load_settings(write_settings(tmp_path), {})) as app:
        late = update(job).values(last_run="2026-01-01 00:00:00")
        await app.store.write(lambda conn: conn.execute(late) and None)
        found = await shown(app)
        assert found["check"].items() <= found["doctor"].items()
        assert set(found["check"]) == {"mailchimpsyncConfig", "jobLate:1"}


async def test_the_brake_and_a_webhook_that_is_gone_are_findings(tmp_path: Path) -> None:
    def stop_and_lose_the_webhook(conn: Connection) -> None:
        link_audience(conn)
        checkpoint = checkpoints.load(conn, LIST)
        checkpoint.brake = {"sentence": "It would remove 60 of 70 people."}
        checkpoints.save(conn, checkpoint)
        webhook_health.note(conn, LIST, "member_hook", found=False, at_s=1_770_000_000)

    async with open_app(load_settings(write_settings(tmp_path, mailchimp=UNREACHABLE), {})) as app:
        await app.store.write(stop_and_lose_the_webhook)
        found = (await shown(app))["check"]
        severity, message = found[f"mailchimpsyncBrake:{LIST}"]
        assert (severity, message.partition(".")[0]) == ("warning", "It would remove 60 of 70 people")
        assert found[f"mailchimpsyncHooks:{LIST}"][1].startswith(f"Audience {LIST}: ")


async def test_a_job_that_never_ran_is_advice_of_the_doctor_alone(tmp_path: Path) -> None:
    async with open_app(load_settings(write_settings(tmp_path), {})) as app:
        found = await shown(app)
        assert found["doctor"]["jobNeverRun:1"][0] == "info"
        assert "jobNeverRun:1" not in found["check"]


async def test_a_mailchimp_that_cannot_be_reached_is_one_finding_and_not_asked_for_webhooks_too(tmp_path: Path) -> None:
    async with open_app(load_settings(write_settings(tmp_path, mailchimp=UNREACHABLE), {})) as app:
        await app.store.write(link_audience)
        asked_in_vain = {code for code, (_, text) in (await shown(app))["doctor"].items() if "No usable answer" in text}
        assert asked_in_vain == {"mailchimpKey:-us1"}


async def test_a_user_whose_contact_is_not_there_is_a_finding(tmp_path: Path) -> None:
    users = "".join(
        f"[user:{name}]\napi_key = {name}\npermissions = *\ncontact_id = {contact_id}\n"
        for name, contact_id in (("fine", 1), ("trashed", 2), ("missing", 999))
    )
    async with open_app(load_settings(write_settings(tmp_path, more=users), {})) as app:
        person: dict[str, Any] = {"contact_type": "Individual", "first_name": "Ada"}
        for params in ({}, {}, {"is_deleted": 1, "id": 2}):
            await app.api.respond(Call("Contact", "create", person | params, SYSTEM))
        found = (await shown(app))["doctor"]
        said = {code: found[code] for code in found if code.startswith("userContact")}
    remedy = "Correct contact_id, or leave it out: then a contact is created."
    assert said == {
        "userContact:trashed": ("warning", f"[user:trashed] is contact 2, which is in the trash. {remedy}"),
        "userContact:missing": ("warning", f"[user:missing] is contact 999, which does not exist. {remedy}"),
    }
