"""Whether a process of this machine has ended is told by its name; of others nothing is said."""

import os

import pytest

from civiapi.runtime import process_names
from civiapi.runtime.process_names import has_ended, own_name
from tests.support.processes import a_named_process


def test_a_process_has_not_ended_while_it_runs_and_has_once_it_is_killed() -> None:
    with a_named_process() as (process, name):
        assert not has_ended(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(name)  # dead, though nobody has taken note of it
    assert has_ended(name)


def test_this_process_runs() -> None:
    assert not has_ended(own_name())
    assert len(own_name()) <= 44


def changed(place: int, value: str) -> str:
    host, number, identity = own_name().split(":")
    parts = [host, number, *identity.split(".")]
    parts[place] = value
    return f"{parts[0]}:{parts[1]}:{parts[2]}.{parts[3]}"


def test_another_process_got_its_number() -> None:
    assert has_ended(changed(2, "1"))


@pytest.mark.parametrize(
    "name",
    [
        changed(0, "another-host"),
        changed(3, "00000000"),  # another boot, or a container with numbers of its own
        changed(2, ""),
        changed(1, "0"),
        changed(1, "-1"),
        changed(1, "9" * 30),
        "tests",
        "host:4:abcd",
        "clean-up",
        ":",
        "",
    ],
)
def test_of_any_other_name_nothing_is_known(name: str) -> None:
    assert not has_ended(name)


def test_where_the_system_says_nothing_of_processes_none_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_named_process() as (_, name):
        pass
    monkeypatch.setattr(process_names, "_system", lambda: "")
    assert not has_ended(name)
    assert not has_ended(name.rpartition(".")[0] + ".")
