"""How a connection is said to stand, as a table; and how progress reads."""

from typing import Any

import pytest
from jinja2 import Environment

from civiapi.ui.connections import STAGE_TITLES, Connection, Schedule
from civiapi.ui.pages import template_options
from civiapi.ui.parts import did, duration, spoken
from sync.positions import STAGES

NUMBERS = {"mailchimp_updates_pending": 0, "subscribed_at_mailchimp": 3, "subscribed_at_civicrm": 3}
SYNCED = {"lastSyncTime": "2026-01-31 10:00:00", "in_sync": True}
BRAKE = {"brake": {"sentence": "It would remove 40 of 41 people."}}


def a_connection(progress: dict[str, Any] | None = None, **status: Any) -> Connection:
    """A connection at rest that was never synced, but for what is given."""
    at_rest = {"running": False, "stage": "readyToFetch", "stages": list(STAGES), "stage_index": 0, "counts": {}}
    none = {"done": 0, "total": None, "rate_per_s": None, "seconds_left": None}
    never = {"lastSyncTime": None, "log": [], "stats": NUMBERS, "in_sync": False, "crashed": False, "stopped": ""}
    told = never | {"brake": False, "lastSyncTimeHuman": "never"} | status
    return Connection("a1", "12", "News", "Newsletter", "Acme", told, at_rest | none | (progress or {}), Schedule())


RUNNING = {"running": True, "stage": "readyToReconcileQueue", "stage_index": 8}
HELD = {"stage": "readyToSubmitUpdates", "stage_index": 9}


@pytest.mark.parametrize(
    ("one", "word", "tone"),
    [
        pytest.param(a_connection(), "never run", "", id="Nothing was ever done."),
        pytest.param(a_connection(**SYNCED), "in sync", "good", id="Both ends agree."),
        pytest.param(a_connection(RUNNING, **SYNCED), "running", "busy", id="Somebody is at work."),
        pytest.param(a_connection(RUNNING, **BRAKE), "running", "busy", id="At work after a brake that was let go."),
        pytest.param(a_connection(RUNNING, crashed="Silent."), "crashed?", "bad", id="At work and silent for long."),
        pytest.param(a_connection(HELD, **BRAKE), "stopped by the brake", "warn", id="The brake goes before a pause."),
        pytest.param(a_connection(HELD, stopped="No key."), "failed", "bad", id="A failure goes before a pause."),
        pytest.param(a_connection(HELD, **SYNCED), "paused", "warn", id="Begun and not ended."),
        pytest.param(
            a_connection({"done": 500}, log=[{}]), "paused", "warn", id="Stopped within its first stage, out of time."
        ),
        pytest.param(
            a_connection(**SYNCED | {"in_sync": False, "stats": NUMBERS | {"mailchimp_updates_pending": 2}}),
            "sending",
            "busy",
            id="Updates are on their way.",
        ),
        pytest.param(a_connection(**SYNCED | {"in_sync": False}), "not in sync", "warn", id="The ends differ."),
    ],
)
def test_the_most_pressing_thing_is_said(one: Connection, word: str, tone: str) -> None:
    assert (one.state.word, one.state.tone) == (word, tone)
    assert one.state.sentence


def test_every_stage_has_a_title() -> None:
    assert set(STAGE_TITLES) == set(STAGES)


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        ({}, "0 so far"),
        ({"done": 1200, "rate_per_s": 3.5}, "1,200 so far · 3.5 a second"),
        (
            {"done": 3401, "total": 12000, "rate_per_s": 812.3, "seconds_left": 11},
            "3,401 of 12,000 · 812 a second · about 11 s left",
        ),
        ({"done": 5, "total": 5, "rate_per_s": 9.9, "seconds_left": 0}, "5 of 5 · 9.9 a second"),
    ],
)
def test_progress_reads_as_a_sentence(progress: dict[str, Any], words: str) -> None:
    templates = Environment(**template_options())
    context = {"path": "", "titles": STAGE_TITLES, "duration": duration, "did": did}
    part = templates.get_template("_status_parts.html").make_module(context)
    assert " ".join(str(part.pace(a_connection(RUNNING | progress))).split()) == words


def test_a_screen_reader_hears_stages_and_quarters_not_every_number() -> None:
    said = [spoken(a_connection(RUNNING | {"done": done, "total": 100})) for done in (24, 25, 49, 50, 100)]
    assert said == [
        "News: running, Reconcile, 0 %.",
        "News: running, Reconcile, 25 %.",
        "News: running, Reconcile, 25 %.",
        "News: running, Reconcile, 50 %.",
        "News: running, Reconcile.",
    ]
