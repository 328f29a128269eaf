"""Names of processes by which another process on the same machine can tell that one has ended.

A number alone is given to another process sooner or later, and each container counts its own. So a name has the host,
the number, when the process began, and which system it counts in (this boot, this namespace of numbers).
"""

import os
import socket
from functools import cache
from hashlib import sha256
from pathlib import Path

HOST_LENGTH = 16


@cache
def _name_of(pid: int) -> str:
    return f"{socket.gethostname()[:HOST_LENGTH].replace(':', '.')}:{pid}:{_began(pid)}.{_system()}"


def own_name() -> str:
    """The name of this process: at most 44 characters, ``host:number:beginning.system``."""
    return _name_of(os.getpid())


def has_ended(name: str) -> bool:
    """Whether the process of this name has ended for sure; False for one of another machine, or no such name."""
    host, _, rest = name.partition(":")
    number, _, identity = rest.partition(":")
    began, _, system = identity.partition(".")
    mine = own_name().partition(":")[0], _system()
    if (host, system) != mine or not system or not began or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # another user's
    return _began(int(number)) not in ("", began)


def _began(pid: int) -> str:
    """When a process began, in ticks since the boot; "0" for one that is dead and only waits for its parent, "" where
    that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "0" if fields[0] in "ZX" else fields[19]


@cache
def _system() -> str:
    """This boot of this machine and the namespace of process numbers; "" where they cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return sha256(f"{boot} {namespace}".encode()).hexdigest()[:8]
