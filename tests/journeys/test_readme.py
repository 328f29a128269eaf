"""The README's own commands, run as they stand: what a newcomer types works."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sync.emulator.server.running import running_emulator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(sh|json)\n(.*?)```", README, re.S)
COMMANDS = [line.split("#")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
APART = ("civiapi serve", "civiapi doctor")  # serve is started by test_newcomer.py; doctor is looked at below
ELSEWHERE = {"pip install .": "packaging is .ci/run's: it installs from a clean clone"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_every_target_that_the_readme_names_is_there(command: str) -> None:
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.M)


async def test_the_readme_s_commands_work_in_the_order_it_gives_them(tmp_path: Path) -> None:
    link = next(block for kind, block in BLOCKS if kind == "json")
    async with running_emulator() as emulator:
        emulator.admin("import", "ada@example.org")
        list_id = emulator.audience().id
        (tmp_path / "link.json").write_text(link.replace("MAILCHIMP_KEY", emulator.key).replace("LIST_ID", list_id))
        ours = [c for c in COMMANDS if c.startswith("civiapi ")]
        assert [c for c in COMMANDS if c and c not in ours and not c.startswith("make ")] == list(ELSEWHERE)
        script = "\n".join(
            [f'civiapi() {{ {sys.executable} -m civiapi "$@"; }}', "set -ex"]
            + [c for c in ours if not c.startswith(APART)]
        )
        done = await _run(script, tmp_path, emulator.key, list_id, emulator.base_url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {m.email for m in emulator.audience().members if m.status == "subscribed"} > {"ada@example.org"}
        looked = await _run(f"{sys.executable} -m civiapi doctor", tmp_path, emulator.key, list_id, emulator.base_url)
        assert "ok   [server] site_key is set." in looked.stdout
        assert "Traceback" not in looked.stderr


async def _run(script: str, folder: Path, key: str, list_id: str, base_url: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "MAILCHIMP_KEY": key,
        "LIST_ID": list_id,
        "CIVIAPI_MAILCHIMP__BASE_URL": base_url,
        "CIVIAPI_MAILCHIMP__POLL_SECONDS": "0.2",
        "CIVIAPI_SERVER__BASE_URL": "",
    }
    return await asyncio.to_thread(
        subprocess.run, ["bash", "-c", script], cwd=folder, env=environ, capture_output=True, text=True, timeout=120
    )
