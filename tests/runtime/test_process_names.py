"""Whether a process of this machine has ended is told by its name; of others nothing is said."""

import os
from collections.abc import Callable

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


OTHERS = {
    "of another machine": lambda: changed(0, "another-host"),
    "of another boot, or of a container with numbers of its own": lambda: changed(3, "00000000"),
    "without a beginning": lambda: changed(2, ""),
    "without a number": lambda: changed(1, "0"),
    "with a number below nothing": lambda: changed(1, "-1"),
    "with a number that no process has": lambda: changed(1, "9" * 30),
    "of an earlier version": lambda: "host:4:abcd",
    "of no process": lambda: "clean-up",
    "of nothing": lambda: ":",
    "empty": lambda: "",
}


@pytest.mark.parametrize("name", OTHERS.values(), ids=OTHERS)
def test_of_any_other_name_nothing_is_known(name: Callable[[], str]) -> None:
    assert not has_ended(name())


def test_where_the_system_says_nothing_of_processes_none_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_named_process() as (_, name):
        pass
    monkeypatch.setattr(process_names, "_system", lambda: "")
    assert not has_ended(name)
    assert not has_ended(name.rpartition(".")[0] + ".")
