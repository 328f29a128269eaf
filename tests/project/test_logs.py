"""Logs are readable, and no secret gets into them whoever logs it."""

import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from civiapi import logs
from civiapi.settings import LogSettings
from civiapi.store.databases.dialect import insert_new
from civiapi.store.engine import open_store
from sync.store.tables import campaign
from tests.support.databases import KINDS, a_database

SECRET = "s3cr3t-that-must-not-show"
MAILCHIMP_KEY = "0123456789abcdef0123456789abcdef-us1"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged from here on, as JSON lines; logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.set_up(LogSettings(level="debug", format="json"), stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _last(stream: io.StringIO) -> dict[str, str]:
    event: dict[str, str] = json.loads(stream.getvalue().splitlines()[-1])
    return event


def test_a_line_says_when_what_and_where(lines: io.StringIO) -> None:
    structlog.get_logger("civiapi.test").info("serving", port=8080)
    event = _last(lines)
    assert (event["event"], event["port"], event["level"], event["logger"]) == ("serving", 8080, "info", "civiapi.test")
    assert event["timestamp"].endswith("Z")


def test_libraries_that_use_logging_look_the_same(lines: io.StringIO) -> None:
    logging.getLogger("aiohttp.server").error("Error handling %s", "request")
    assert _last(lines)["event"] == "Error handling request"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_row_that_was_there_already_is_not_logged(kind: str, lines: io.StringIO, tmp_path: Path) -> None:
    """MariaDB's driver logs each that an insert passed over, with its key, which may be an address."""
    with a_database(kind, tmp_path) as url:
        store = await open_store(url)
        for _ in range(2):
            row = {"campaign_id": "ada@example.org", "list_id": "a1", "sent_s": 1}
            await store.write(insert_new, campaign, [row])
        await store.close()
    assert "ada@example.org" not in lines.getvalue()


@pytest.mark.parametrize(
    "name", ["api_key", "site_key", "secret", "password", "authorization", "apiKey", "webhookSecret"]
)
def test_a_field_with_a_secret_name_is_masked(lines: io.StringIO, name: str) -> None:
    structlog.get_logger().warning("look", **{name: SECRET}, nested={name: SECRET})
    assert SECRET not in lines.getvalue()
    assert logs.MASK in lines.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        f"POST /extern/rest.php?key={SECRET}&entity=Contact",
        f"/rest.php?entity=Contact&api_key={SECRET}",
        f"https://crm.example.org/civicrm/mailchimpsync/webhook?secret={SECRET}",
        f"X-Civi-Auth: Bearer {SECRET}",
        f"Authorization: Basic {SECRET}==",
        f"_authx=Bearer+{SECRET}",
        f"{{'apiKey': '{SECRET}'}}",
        f'{{"batchWebhookSecret":"{SECRET}"}}',
        f"mysql://civi:{SECRET}@db/civicrm",
    ],
)
def test_a_secret_inside_a_text_is_masked(lines: io.StringIO, text: str) -> None:
    structlog.get_logger().info(text, url=text)
    logging.getLogger("some.library").warning("saw %s", text)
    assert SECRET not in lines.getvalue()


def test_a_mailchimp_key_is_masked_wherever_it_stands(lines: io.StringIO) -> None:
    structlog.get_logger().info(f"the account {MAILCHIMP_KEY} is new")
    assert MAILCHIMP_KEY not in lines.getvalue()


def _fail(api_key: str) -> None:
    raise ValueError(f"cannot use key={api_key}")


def test_a_traceback_shows_the_fault_and_no_secret(lines: io.StringIO) -> None:
    try:
        _fail(SECRET)
    except ValueError:
        structlog.get_logger().exception("failed")
    assert SECRET not in lines.getvalue()
    assert "in _fail" in _last(lines)["exception"]


@pytest.mark.parametrize(
    "piece",
    ["a", "a-", "secret", "secret=", "_authx", "://b:", "a://b:", "bearer ", "authorization:", "token-", '"', " "],
)
def test_a_text_made_to_be_looked_through_again_and_again_is_masked_at_once(piece: str) -> None:
    # Quadratic, a megabyte of these held everything for minutes.
    whole = logs.MAX_TEXT // len(piece)
    began = time.process_time()
    logs.masked([piece * whole] * 10)
    logs.masked(piece * (2_000_000 // len(piece)))
    assert time.process_time() - began < 1


def test_a_text_of_any_length_is_shortened_and_loses_no_mask() -> None:
    text = f"api_key={SECRET} " + "x" * 100_000 + f"api_key={SECRET}" * 2000 + f"\nlast line, key={SECRET}"
    shown = logs.masked(text)
    assert len(shown) <= logs.MAX_TEXT + 100
    assert SECRET not in shown
    assert shown.endswith(f"last line, key={logs.MASK}")


def test_ordinary_words_are_left_alone() -> None:
    text = "The basic contact has key people; monkey business = fine, donkey: 3"
    assert logs.masked(text) == text
