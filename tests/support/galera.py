"""A Galera cluster of three MariaDB servers on this machine (``mariadb_server``)."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.mariadb_server import PATH, START_S, Server, missing_packages, server_folder

PROVIDERS = (Path("/usr/lib/galera/libgalera_smm.so"), Path("/usr/lib64/galera-4/libgalera_smm.so"))
FIRST_PORT = 24001  # below those that the system gives to outgoing connections
NODES = 3


def why_no_galera() -> str:
    """Why no cluster can be started here, or nothing."""
    missing = missing_packages() + ([] if _provider() else ["galera-4"])
    missing += [name for name in ("rsync", "wsrep_sst_rsync") if not shutil.which(name, path=PATH)]
    return f"not installed: {', '.join(missing)}" if missing else ""


def _provider() -> Path | None:
    return next((path for path in PROVIDERS if path.exists()), None)


@dataclass
class Node(Server):
    """One server of the cluster."""

    @property
    def group_port(self) -> int:
        return self.port + 100

    def is_synced(self) -> bool:
        """Whether it is in the cluster and answers."""
        try:
            return self.sql("SHOW STATUS LIKE 'wsrep_local_state_comment'", timeout=5).endswith("Synced")
        except subprocess.SubprocessError:
            return False

    def counts(self) -> int:
        """How many nodes it sees in the cluster, itself included."""
        return int(self.sql("SHOW STATUS LIKE 'wsrep_cluster_size'").split()[-1])

    def isolate(self, *, on: bool) -> None:
        """Cut it off from the other nodes, or connect it again; its own callers still reach it."""
        self.sql(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(on)}'")


@dataclass
class Galera:
    """The cluster."""

    nodes: list[Node] = field(default_factory=list)

    def start(self, node: Node) -> None:
        """Start a node and wait until it has joined; the first one of a new cluster is the cluster."""
        is_first = not any(one.process for one in self.nodes)
        others = ",".join(f"127.0.0.1:{one.group_port}" for one in self.nodes if one is not node)
        options: dict[str, Any] = {
            "binlog-format": "ROW",
            "innodb-autoinc-lock-mode": 2,
            "wsrep-on": "ON",
            "wsrep-provider": _provider(),
            "wsrep-cluster-name": "civiapi-test",
            "wsrep-cluster-address": "gcomm://" if is_first else f"gcomm://{others}",
            "wsrep-node-name": f"node{node.port}",
            "wsrep-node-address": f"127.0.0.1:{node.group_port}",
            "wsrep-sst-method": "rsync",
            "wsrep-sst-receive-address": f"127.0.0.1:{node.port + 300}",
            "wsrep-slave-threads": 2,
            "wsrep-provider-options": f"base_host=127.0.0.1;base_port={node.group_port};"
            f"gmcast.listen_addr=tcp://127.0.0.1:{node.group_port};ist.recv_addr=127.0.0.1:{node.port + 200};"
            "gcache.size=32M;pc.recovery=FALSE;pc.wait_prim_timeout=PT100S",
        }
        command = node.command(options)
        if is_first:
            command.append("--wsrep-new-cluster")
        elif recovered := _recovered_position(command, node):
            command.append(f"--wsrep-start-position={recovered}")  # it is sent what it missed, and not everything
        node.run(command)
        self.wait_until_synced(node)

    def kill(self, node: Node) -> None:
        """Kill a node, and wait until the others have noticed: started before, it would not be let in."""
        node.kill()
        other = next(one for one in self.nodes if one is not node)
        until = time.monotonic() + START_S
        while other.counts() != NODES - 1:
            assert time.monotonic() < until, f"the node at {node.port} is still counted:\n{other.what_it_said()}"
            time.sleep(0.2)

    def wait_until_synced(self, node: Node) -> None:
        node.wait_until(node.is_synced, "did not join")

    def wait_until_whole(self) -> None:
        """Return once all nodes see each other. One that was away does not know it at first: it has to be the others
        who say so, or the next one to be killed leaves a minority."""
        for node in (*self.nodes, *self.nodes):
            node.wait_until(lambda node=node: node.is_synced() and node.counts() == NODES, "is not with the others")


def _recovered_position(command: list[str], node: Node) -> str:
    """Up to where a node that was killed has the others' changes, as Debian's service finds out; or nothing."""
    if not (node.data / "grastate.dat").exists():
        return ""
    log = node.folder / "recovery.err"
    log.unlink(missing_ok=True)
    recover = [*(one for one in command if not one.startswith("--log-error")), f"--log-error={log}", "--wsrep-recover"]
    subprocess.run(recover, env={**os.environ, "PATH": PATH}, check=True, capture_output=True, timeout=START_S)
    found = re.findall(r"Recovered position: (\S+:\d+)", log.read_text("utf-8", "replace"))
    return str(found[-1]) if found else ""


@contextmanager
def a_galera() -> Iterator[Galera]:
    """A cluster of three nodes while the block lasts."""
    with server_folder("galera") as folder:
        cluster = Galera([Node(folder / f"node{number}", FIRST_PORT + number) for number in range(NODES)])
        for node in cluster.nodes:
            node.make_folder()
        cluster.nodes[0].install()
        try:
            for node in cluster.nodes:
                cluster.start(node)
            yield cluster
        finally:
            for node in cluster.nodes:
                node.kill()
