"""The program as users start it: commands in this process or their own, and a server for the length of a block."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from typer.testing import CliRunner

from sync.mailchimp.transport import tls_context
from tests.support.databases import database_at

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
SITE_KEY = "a-site-key-for-tests"
ADMIN_KEY = "an-admin-key-for-tests"


def environment(**more: str) -> dict[str, str]:
    """Our own environment without settings of civiapi, with the program on the path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CIVIAPI_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean.get('PATH', '')}"
    return {**clean, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


def civiapi(*words: str | Path, cwd: Path, stdin: str | bytes = "", **env: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "civiapi", *map(str, words)],
        cwd=cwd,
        input=stdin.decode("latin-1") if isinstance(stdin, bytes) else stdin,
        env=environment(**env),
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )


def invoke(*words: str | Path, cwd: Path, stdin: str | bytes = "", **env: str) -> subprocess.CompletedProcess[str]:
    """One command to its end inside this process, which is quicker. It runs an event loop, so not for async tests."""
    from civiapi.cli import main

    clean: dict[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("CIVIAPI_"))
    arguments = [str(word) for word in words]
    isolated = CliRunner().isolation(input=stdin, env=clean | {"COLUMNS": "200"} | env)
    with contextlib.chdir(cwd), _logging_restored(), isolated as (out, err, _):
        with pytest.raises(SystemExit) as left:
            main.run(arguments)
        code = left.value.code if isinstance(left.value.code, int) else 0
        return subprocess.CompletedProcess(arguments, code, out.getvalue().decode(), err.getvalue().decode())


@contextlib.contextmanager
def _logging_restored() -> Iterator[None]:
    """Undo what a command does to the log of its process."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**config)


SAY_NAME = "import sys; from civiapi.runtime import process_names; print(process_names.own_name(), flush=True); input()"


@contextlib.contextmanager
def a_named_process() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process that waits until it is killed, at the latest when the block ends, and its name."""
    command = [sys.executable, "-c", SAY_NAME]
    started = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )
    try:
        assert started.stdout is not None
        yield started, started.stdout.readline().strip()
    finally:
        started.kill()
        started.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_settings(folder: Path, *, port: int = 8080, mailchimp: str = "", more: str = "") -> Path:
    """A settings file in *folder* with a user `admin` who may do everything, and a database beside it."""
    path = folder / "settings.ini"
    path.write_text(
        f"[server]\nport = {port}\nbase_url = http://127.0.0.1:{port}\nsite_key = {SITE_KEY}\n"
        f"[database]\nurl = {database_at(folder / 'site.sqlite')}\n"
        f"[mailchimp]\nbase_url = {mailchimp}\npoll_seconds = 0.1\n"
        f"[scheduler]\nenabled = no\n[user:admin]\napi_key = {ADMIN_KEY}\npermissions = *\n{more}",
        "utf-8",
    )
    return path


@contextlib.contextmanager
def process(*words: str | Path, cwd: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while the block lasts, its output in pipes; killed afterwards if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "civiapi", *map(str, words)],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


@contextlib.contextmanager
def serving(config: Path, port: int, **env: str) -> Iterator[subprocess.Popen[str]]:
    """``civiapi serve`` from when it can answer; stopped by SIGTERM, which must end it well."""
    with process("serve", "--config", config, cwd=config.parent, **env) as child:
        wait_until_served(child, port)
        yield child
        if child.poll() is None:
            stop(child)
            assert child.returncode == 0, child.stderr and child.stderr.read()


def wait_until_served(child: subprocess.Popen[str], port: int) -> None:
    """Return once /healthz answers 200; fail when the process ends before."""
    until = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=tls_context()) as http:
        while time.monotonic() < until:
            assert child.poll() is None, f"serve ended with {child.returncode}: {child.stderr and child.stderr.read()}"
            with contextlib.suppress(httpx.TransportError):
                if http.get("/healthz").status_code == 200:
                    return
            time.sleep(0.05)
    raise AssertionError("serve did not answer")


def stop(child: subprocess.Popen[str]) -> None:
    """SIGTERM, then wait for the end: ten seconds are what a service manager gives."""
    child.send_signal(signal.SIGTERM)
    child.wait(10)


def run_forked(words: list[str], log: Path) -> None:
    """Be the program, in a process that was forked for it: both outputs into *log*."""
    from civiapi.cli import main

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(out, number)
    for name in [name for name in os.environ if name.startswith("CIVIAPI_")]:
        del os.environ[name]
    sys.argv = ["civiapi", *words]
    main.run()
