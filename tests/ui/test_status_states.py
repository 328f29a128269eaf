"""The state of a connection, as a table; and how progress is shown."""

from datetime import UTC, datetime
from typing import Any

import pytest
from jinja2 import Environment
from markupsafe import Markup

from civiapi.store.clock import site_clock
from civiapi.ui.core.templates import add_globals, template_options
from civiapi.ui.core.times import Times
from civiapi.ui.status.fragments import announcement, module_context
from civiapi.ui.status.model import ConnectionView, SyncSchedule
from civiapi.ui.status.problems import of_failed_sync
from sync.store.balance import Balance
from sync.store.runs.checkpoints import STAGE_TITLES, STAGES

NUMBERS = Balance(subscribed_at_mailchimp=3, subscribed_at_civicrm=3).as_dict()
SYNCED = {"lastSyncTime": "2026-01-31 10:00:00", "in_sync": True}
BRAKE = {"brake": {"sentence": "It would remove 40 of 41 people."}}


def a_connection(progress: dict[str, Any] | None = None, **status: Any) -> ConnectionView:
    """A connection at rest that was never synced, but for what is given."""
    at_rest = {"running": False, "stage": "readyToFetch", "stages": list(STAGES), "stage_index": 0, "counts": {}}
    none = {"done": 0, "total": None, "rate_per_s": None, "seconds_left": None}
    never = {
        "lastSyncTime": None,
        "locks": {"fetchAndReconcile": "readyToFetch"},
        "log": [],
        "stats": NUMBERS,
        "in_sync": False,
        "crashed": False,
        "stopped": "",
        "waiting": "",
        "health": {"state": "healthy", "why": "Last sync: never."},
        "webhooks": {"ok": None, "why": "", "asked": ""},
        "cannot_be_mailed": [],
        "last_finished": "",
        "without_address": False,
        "not_to_be_mailed": False,
        "one_way": False,
    }
    told = never | {"brake": False, "lastSyncTimeHuman": "never"} | status
    return ConnectionView(
        "a1", "12", "News", "Newsletter", "Acme", told, at_rest | none | (progress or {}), SyncSchedule()
    )


def fragments_module() -> Any:
    """The macros of the status page's parts."""
    templates = Environment(**template_options())
    add_globals(templates, site_clock("Europe/London"))
    return templates.get_template("status/_fragments.html").make_module(module_context())


RUNNING = {"running": True, "stage": "readyToReconcileQueue", "stage_index": 8}
HELD = {"stage": "readyToSubmitUpdates", "stage_index": 9}


@pytest.mark.parametrize(
    ("one", "label", "tone"),
    [
        pytest.param(a_connection(), "never run", "", id="Never synced."),
        pytest.param(
            a_connection(waiting="Start it."), "waiting for your first sync", "warn", id="Nobody has started it yet."
        ),
        pytest.param(a_connection(**SYNCED), "in sync", "good", id="Group and audience agree."),
        pytest.param(a_connection(RUNNING, **SYNCED), "running", "busy", id="A sync runs."),
        pytest.param(a_connection(RUNNING, **BRAKE), "running", "busy", id="A sync runs after its brake was released."),
        pytest.param(
            a_connection(RUNNING, crashed="Silent."), "crashed?", "bad", id="A sync runs but has not logged for long."
        ),
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
            id="Updates are in flight.",
        ),
        pytest.param(
            a_connection(**SYNCED | {"in_sync": False}), "not in sync", "warn", id="Group and audience differ."
        ),
    ],
)
def test_the_most_urgent_state_is_shown(one: ConnectionView, label: str, tone: str) -> None:
    assert (one.state.label, one.state.tone) == (label, tone)
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
    part = fragments_module()
    assert " ".join(str(part.pace(a_connection(RUNNING | progress))).split()) == words


def test_a_screen_reader_hears_stages_and_quarters_not_every_number() -> None:
    said = [announcement(a_connection(RUNNING | {"done": done, "total": 100})) for done in (24, 25, 49, 50, 100)]
    assert said == [
        "News: running, Reconcile, 0 %.",
        "News: running, Reconcile, 25 %.",
        "News: running, Reconcile, 25 %.",
        "News: running, Reconcile, 50 %.",
        "News: running, Reconcile.",
    ]


def test_people_who_cannot_be_mailed_are_counted_by_reason_each_linked() -> None:
    reasons = (("no address", 9), ("opted out", 7))
    counts = [{"label": label, "why": "words", "count": count} for label, count in reasons]
    stats = Balance(subscribed_at_mailchimp=111, subscribed_at_civicrm=127, cannot_subscribe=16).as_dict()
    one = a_connection(**SYNCED | {"stats": stats, "cannot_be_mailed": counts})
    assert one.state.sentence == "In sync: 111 people."
    shown = str(fragments_module().status(one))
    assert " ".join(Markup(shown).striptags().split()).startswith(
        "in sync In sync: 111 people. 16 cannot be mailed: 9 no address, 7 opted out."
    )
    assert shown.count("sync_status=fail") == 3


def test_the_brake_is_told_in_words_for_people() -> None:
    sentence = (
        "The brake is on: this sync would remove 40 of 41 people from the group; the limit is 10 % and 25 people. "
        "Nobody was removed or added. Check Mailchimpsync.plan; to go ahead, call fetchandreconcile with confirm=1."
    )
    assert a_connection(brake={"sentence": sentence}).state.sentence == (
        "This sync would remove 40 of 41 people from the group; the limit is 10 % and 25 people. "
        "It stopped before any change and waits for your decision."
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Audience a stopped at readyToFetch: Mailchimp refused GET /lists/a/members: 403 User Disabled.", "API key"),
        ("Audience a stopped at readyToFetch: Invalid API key - could not extract datacentre.", "API key"),
        ("Audience a: No usable answer from Mailchimp to GET /ping: timeout", "could not be reached"),
        ("Audience a: Mailchimp throttled GET /x (429); try again later", "fewer requests"),
        ("Something else.", "could not continue"),
    ],
)
def test_a_failed_sync_says_what_happened_without_technical_words(text: str, what: str) -> None:
    problem = of_failed_sync(text)
    assert what in problem.what
    assert "Nothing is lost" in problem.at_risk
    assert problem.details == text
    assert "readyTo" not in problem.what


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param({}, "healthy", id="The time of the last sync is shown anyway."),
        pytest.param({"health": {"state": "late", "why": "One was expected."}}, "late: One was expected.", id="Late."),
        pytest.param(
            {"health": {"state": "needs you", "why": "No."}, "webhooks": {"ok": False, "why": "No.", "asked": ""}},
            "needs you: A webhook is missing at Mailchimp. Set it up in Connections.",
            id="Hooks.",
        ),
        pytest.param(
            {"health": {"state": "needs you", "why": "It would remove 40."}} | BRAKE,
            "needs you",
            id="The brake, said above.",
        ),
        pytest.param(
            {"health": {"state": "failed", "why": "No key."}, "stopped": "No key."}, "failed", id="Said above."
        ),
        pytest.param(
            {"health": {"state": "will retry by itself", "why": "3 refused."}},
            "will retry by itself: 3 refused.",
            id="Retry.",
        ),
    ],
)
def test_the_health_is_one_word_with_the_reason_where_nothing_else_says_it(status: dict[str, Any], words: str) -> None:
    part = fragments_module()
    one = a_connection(**status)
    assert Markup(part.health(one)).striptags() == words
    for shown in (part.card(one), part.status(one)):
        assert f"<dt>Health</dt><dd>{part.health(one)}</dd>" in str(shown)


def test_open_alerts_are_listed_with_what_to_do_and_names_are_text() -> None:
    alert = {
        "sentence": "<b>Late</b>.",
        "remedy": "Look.",
        "began": "2026-01-31 11:00:00",
        "connection": a_connection(),
    }
    part = fragments_module()
    shown = str(part.alerts([alert, alert | {"connection": None}]))
    assert "2 open alerts" in shown
    assert shown.count('<a href="/civicrm/mailchimpsync/audience/a1">News</a>:') == 1
    assert "&lt;b&gt;Late&lt;/b&gt;." in shown
    assert not str(part.alerts([])).strip()


NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-01-31 11:59:30", "just now"),
        ("2026-01-31 11:52:00", "8 minutes ago"),
        ("2026-01-31 10:59:00", "1 hour ago"),
        ("2026-01-29 11:00:00", "2 days ago"),
        ("2026-01-31 12:12:00", "in 12 minutes"),
        ("2025-12-24 18:30:00", "24 Dec 2025, 18:30"),
    ],
)
def test_a_time_is_said_as_people_do_with_all_of_it_on_hover(text: str, words: str) -> None:
    shown = Times(site_clock("Europe/London")).ago(text, NOW)
    assert shown.striptags() == words
    assert "Europe/London (UTC+0000)" in shown


def test_what_is_no_time_stays_as_it_is() -> None:
    assert Times(site_clock("UTC")).when("<soon>") == "&lt;soon&gt;"
