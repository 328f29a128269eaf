"""The messages of alerts lead to the page where something can be done about them."""

import pytest

from civiapi.alerts.messages import about
from civiapi.alerts.records import Alert
from civiapi.store.clock import site_clock

BASE = "https://example.org/"
STATUS = "https://example.org/civicrm/mailchimpsync"


@pytest.mark.parametrize(
    ("code", "page"),
    [
        ("mailchimpsync_late:abc123", f"{STATUS}/audience/abc123"),
        ("mailchimpsync_failed:abc123:more", f"{STATUS}/audience/abc123"),
        ("mailchimpsync_config", STATUS),
        ("mailchimpsync_odd:../../x", STATUS),
        ("database", STATUS),
    ],
)
def test_an_alert_about_an_audience_links_to_it_and_its_runs(code: str, page: str) -> None:
    alert = Alert(1, code, "error", "It failed.", "Look.", 1_700_000_000_000, 0)
    assert about(alert, site_clock(""), BASE).text.splitlines()[-1] == page
    assert "http" not in about(alert, site_clock(""), "").text
