"""The text of an alert: subject, body, and the JSON of a webhook request. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from civiapi.alerts.records import Alert
from civiapi.store.clock import SiteClock
from sync.reports.checks import audience_of

MAX_SUBJECT = 160
OPENED, CLOSED, DIGEST, TEST = "opened", "closed", "digest", "test"
TEST_TEXT = "This is a test of civiapi's alerts. Nothing is wrong."
ALL_WELL = "Nothing needs attention."


@dataclass(frozen=True, slots=True)
class Message:
    """What one channel sends. *kind*: opened, closed, digest or test."""

    kind: str
    subject: str
    text: str
    code: str = ""


def about(alert: Alert, clock: SiteClock, base_url: str) -> Message:
    """The message that an alert has begun, or is over."""
    since = clock.write_epoch(alert.began_ms / 1000)
    if alert.ended_ms:
        subject, lines = "Mended", [f"Over since {clock.write_epoch(alert.ended_ms / 1000)}; it began on {since}."]
        kind = CLOSED
    else:
        subject, lines = alert.severity.capitalize(), [f"Since {since}."]
        lines += [f"What to do: {alert.remedy}"] if alert.remedy else []
        kind = OPENED
    text = "\n\n".join([alert.sentence, *lines, *_link(base_url, alert.code)])
    return Message(kind, _subject(f"{subject}: {alert.sentence}"), text, alert.code)


def digest(is_open: Sequence[Alert], ended: Sequence[Alert], clock: SiteClock, base_url: str) -> Message:
    """The summary of the alerts that are open, and of those that ended since the last one."""
    lines = [f"- {one.sentence} (since {clock.write_epoch(one.began_ms / 1000)})" for one in is_open]
    parts = ["\n".join(lines) if lines else ALL_WELL]
    if ended:
        over = [f"- {one.sentence} (over since {clock.write_epoch(one.ended_ms / 1000)})" for one in ended]
        parts.append("\n".join(["Mended since the last summary:", *over]))
    count = len(is_open)
    problems = "nothing needs attention" if not count else "1 problem" if count == 1 else f"{count} problems"
    return Message(DIGEST, f"civiapi: {problems}", "\n\n".join([*parts, *_link(base_url)]))


def trial(base_url: str) -> Message:
    """The message of ``civiapi alerts test``."""
    return Message(TEST, "Test of civiapi's alerts", "\n\n".join([TEST_TEXT, *_link(base_url)]))


def webhook_body(message: Message, style: str, message_id: str) -> dict[str, Any]:
    """The JSON of a webhook request, as plain JSON, for Slack, or for a workflow of Teams."""
    if style == "slack":
        return {"text": f"*{message.subject}*\n{message.text}"}
    if style == "teams":
        blocks = [
            {"type": "TextBlock", "text": message.subject, "weight": "Bolder", "wrap": True},
            {"type": "TextBlock", "text": message.text, "wrap": True},
        ]
        card = {"type": "AdaptiveCard", "version": "1.4", "body": blocks}
        return {
            "type": "message",
            "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
        }
    return {
        "id": message_id,
        "event": message.kind,
        "code": message.code,
        "subject": message.subject,
        "text": message.text,
    }


def _subject(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SUBJECT else f"{line[: MAX_SUBJECT - 1]}…"


def _link(base_url: str, code: str = "") -> list[str]:
    """The page of the audience that a finding's *code* names, with its runs; else the Status page."""
    if not base_url:
        return []
    page = f"{base_url.rstrip('/')}/civicrm/mailchimpsync"
    list_id = audience_of(code)
    return [f"{page}/audience/{list_id}" if list_id.isalnum() else page]
