"""``civiapi run`` and ``civiapi undo``: a run shown, listed as CSV, its undo previewed, asked for and done once."""

import asyncio
import csv
import json
from pathlib import Path

import pytest
import typer

from civiapi.api.call import Call
from civiapi.app import open_app
from civiapi.cli.common import fail, say
from civiapi.settings import load_settings
from sync.emulator.server.running import running_emulator
from tests.support.processes import civiapi, write_settings


async def test_a_run_is_shown_and_undone_by_commands(tmp_path: Path) -> None:
    async with running_emulator() as emulator:
        emulator.admin("import", "ada@example.org")
        settings = write_settings(tmp_path, mailchimp=emulator.base_url)
        list_id = emulator.audience().id
        accounts = {emulator.key: {"apiKey": emulator.key, "audiences": {list_id: {"name": "News"}}}}
        async with open_app(load_settings(settings, {})) as app:
            group = await app.api.respond(Call("Group", "create", {"title": "News"}))
            link = {"apiKey": emulator.key, "subscriptionGroup": str(group["id"]), "interests": {}}
            config = json.dumps({"accounts": accounts, "lists": {list_id: link}})
            await app.api.respond(Call("Mailchimpsync", "updateconfig", {"config": config}))
            await app.api.respond(Call("Mailchimpsync", "fetchandreconcile", {"group_id": group["id"]}))
        shown = await asyncio.to_thread(civiapi, "run", "1", "--csv", "run.csv", cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert f"Run 1 of group {group['id']}, finished" in shown.stdout
        assert "1 person: they were subscribed at Mailchimp and unknown to CiviCRM: a contact was made." in shown.stdout
        rows = list(csv.DictReader((tmp_path / "run.csv").open()))
        assert [(row["email"], row["kind"]) for row in rows] == [
            ("ada@example.org", "new_contact"),
            ("ada@example.org", "join_group"),
        ]
        plan = await asyncio.to_thread(civiapi, "undo", "1", "--plan", cwd=tmp_path)
        assert "trash_contact\tada@example.org\t" in plan.stdout
        kept = await asyncio.to_thread(civiapi, "undo", "1", cwd=tmp_path, stdin="n\n")
        assert kept.returncode != 0
        done = await asyncio.to_thread(civiapi, "undo", "1", cwd=tmp_path, stdin="y\n")
        assert "Run 1 is undone by run 2; 0 updates were sent to Mailchimp." in done.stdout, done.stderr
        again = await asyncio.to_thread(civiapi, "undo", "1", "--yes", cwd=tmp_path)
        assert (again.returncode, "was undone already" in again.stderr) == (1, True)
        opened = await asyncio.to_thread(civiapi, "run", "2", "--json", cwd=tmp_path)
        assert json.loads(opened.stdout)["values"]["undoes"] == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë\u00a0O’Brien 👩‍🚒\tx", "Zoë\u00a0O’Brien 👩‍🚒\tx"),
        ("\x1b[2JAda\x07\x9b", "�[2JAda��"),
        ("Ada\n2026-01-01 group 1 run: The sync finished.", "Ada�2026-01-01 group 1 run: The sync finished."),
        ("\u202egnp.exe\u2066", "�gnp.exe�"),
    ],
)
def test_a_name_from_a_sign_up_form_steers_no_terminal_and_forges_no_line(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say(text)
    assert capsys.readouterr().out == f"{shown}\n"
    with pytest.raises(typer.Exit):
        fail(text.replace("\n", ""))
    assert capsys.readouterr().err == f"{shown.replace('�2026', '2026')}\n"
