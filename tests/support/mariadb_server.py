"""MariaDB servers of a test's own, in folders and on ports of their own: they may be stopped, killed and misconfigured.

Every server is a process that this module starts and ends by its own id. Where Debian's packages are missing,
``missing_packages`` names them.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_S = 150.0
"""Seconds within which a server answers; one that joins a cluster may have to copy the whole database."""

RUNS_AS = "mysql"
"""The user of Debian's package, where the tests are root's."""

PATH = f"/usr/sbin:/usr/bin:{os.environ.get('PATH', '')}"


def missing_packages() -> list[str]:
    """What of Debian's mariadb-server is missing."""
    return [name for name in ("mariadbd", "mariadb-install-db", "openssl") if not shutil.which(name, path=PATH)]


@dataclass
class Server:
    """One server, started or not."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def install(self) -> None:
        """Make its first database, with a root who needs no password."""
        options = [f"--datadir={self.data}", f"--tmpdir={self.folder}", "--skip-test-db", "--skip-name-resolve"]
        options += ["--innodb-log-file-size=16M", "--auth-root-authentication-method=normal"]
        options += [f"--user={RUNS_AS}"] if os.geteuid() == 0 else []
        subprocess.run(["mariadb-install-db", "--no-defaults", *options], check=True, capture_output=True)

    def make_folder(self) -> None:
        """Make its folder, where the server may write."""
        self.data.mkdir(parents=True)
        if os.geteuid() == 0:  # servers do not like to be root, and rsync's daemon gives it up
            for path in (self.folder, self.data):
                shutil.chown(path, RUNS_AS)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def command(self, options: dict[str, Any]) -> list[str]:
        """What starts it, with these options besides."""
        own: dict[str, Any] = {
            "datadir": self.data,
            "tmpdir": self.folder,  # a server that starts deletes others' temporary tables in a folder that they share
            "port": self.port,
            "socket": self.folder / "socket",
            "pid-file": self.folder / "pid",
            "log-error": self.folder / "log.err",
            "bind-address": "127.0.0.1",
            "innodb-log-file-size": "16M",
            "innodb-buffer-pool-size": "64M",
            "innodb-flush-log-at-trx-commit": 2,
            "character-set-server": "utf8mb4",
            "collation-server": "utf8mb4_unicode_ci",
            **({"user": RUNS_AS} if os.geteuid() == 0 else {}),
        }
        wanted = own | self.options | options
        return ["mariadbd", "--no-defaults", *(f"--{name}={value}" for name, value in wanted.items())]

    def start(self, options: dict[str, Any] | None = None) -> None:
        """Start it, and wait until it answers."""
        self.run(self.command(options or {}))
        self.wait_until(self.answers, "did not start")

    def run(self, command: list[str]) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env={**os.environ, "PATH": PATH}, **quiet)  # type: ignore[call-overload]

    def wait_until(self, is_so: Any, otherwise: str) -> None:
        until = time.monotonic() + START_S
        while not is_so():
            ended = self.process is None or self.process.poll() is not None
            if ended or time.monotonic() > until:
                raise AssertionError(f"the server at {self.port} {otherwise}:\n{self.what_it_said()}")
            time.sleep(0.2)

    def url(self, database: str, user: str = "root") -> str:
        """The address of a database on this server."""
        return f"mysql://{user}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "", *, timeout: float = 20) -> str:
        """What the server answers. Raises ``subprocess.SubprocessError`` where it does not."""
        command = ["mysql", "-uroot", "-h127.0.0.1", f"-P{self.port}", "--connect-timeout=5", "-N", "-e", statement]
        done = subprocess.run([*command, database], check=True, capture_output=True, text=True, timeout=timeout)
        return done.stdout.strip()

    def answers(self) -> bool:
        try:
            return self.sql("SELECT 1", timeout=5) == "1"
        except subprocess.SubprocessError:
            return False

    def what_it_said(self) -> str:
        """The end of its log, for people."""
        path = self.folder / "log.err"
        return path.read_text("utf-8", "replace")[-4000:] if path.exists() else ""

    def stop(self) -> None:
        """End it as a service manager does."""
        self._signal(signal.SIGTERM)
        if self.process is not None:
            self.process.wait(60)
            self.process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Have it answer nobody: for the others it is gone, as behind a broken network."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@contextmanager
def server_folder(name: str) -> Iterator[Path]:
    """A folder that the servers' user may enter, unlike pytest's; deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"civiapi-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_certificates(folder: Path) -> dict[str, Any]:
    """A certificate for a server on this machine, and the authority's that vouches for it, as the server's options."""
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    signed = ["-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-subj", "/CN=a server", "-addext", names]
    for name, more in (("ca", ["-subj", "/CN=an authority"]), ("server", signed)):
        made = [*new, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", *more]
        subprocess.run(made, check=True, capture_output=True)
    for path in folder.iterdir():
        path.chmod(0o644)
    files = {"ssl-ca": "ca.pem", "ssl-cert": "server.pem", "ssl-key": "server.key"}
    return {option: folder / name for option, name in files.items()}


@contextmanager
def a_server(port: int, options: dict[str, Any] | None = None) -> Iterator[Server]:
    """A server at *port* while the block lasts, with these *options* besides."""
    with server_folder("mariadb") as folder:
        server = Server(folder / "server", port, options=options or {})
        server.make_folder()
        server.install()
        try:
            server.start()
            yield server
        finally:
            server.kill()
