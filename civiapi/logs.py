"""Logging with structlog, in the same format for libraries that use ``logging``.

Secrets are masked in all log output: by the name of a field, and inside texts (URLs, tracebacks) by pattern. Texts may
come from outside and be of any length, so they are shortened, and the patterns take linear time.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from civiapi.settings import LogSettings

MASK = "***"
MAX_TEXT = 20_000
"""Characters of one text that are logged. The middle of a longer one is left out: tracebacks say most at both ends."""

SECRET_NAMES = re.compile(r"(?i)^(_authx|authorization|x-civi-.*|cookie|.*(api_?key|site_?key|secret|password|token))$")
_IN_TEXT = (
    # api_key=…, "apiKey": "…", ?secret=… and the like
    (
        re.compile(
            r"(?i)((?:api_?key|site_?key|secret|password|token|\bkey|_authx\w{0,9})"
            r"[\"'\\]{0,4}\s{0,9}(?:=|:|%3D)\s{0,9}[\"'\\]{0,4})[^\s&\"',;)}\]]+"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?)\w+[ +]+[\w.~+/=-]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s{0,9}[:=]\s{0,9})[^\r\n]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(bearer)([ +]|%20)+[\w.~+/=-]+"), rf"\1 {MASK}"),
    (re.compile(r"\b[0-9a-f]{32}-[a-z]{2,4}\d+\b"), f"{MASK}-mailchimp"),  # a Mailchimp key anywhere
    (re.compile(r"(?i)://([^:/\s@]{1,128}):[^@\s]{1,512}@"), rf"://\1:{MASK}@"),
)


def set_up(settings: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Log to *stream* with the configured level and format."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("aiohttp.server").filters[:] = [MalformedRequests()]
    for noisy in ("aiosqlite", "asyncio", "httpx", "httpcore", "apscheduler"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    logging.getLogger("asyncmy").setLevel(max(level, logging.ERROR))  # a warning for each row that was there already


class MalformedRequests(logging.Filter):
    """Has aiohttp's server log a request that is not valid HTTP as one short line.

    Its own line has a traceback, and in it what was sent: cookies, keys in addresses.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and type(error).__module__.startswith("aiohttp."):
            record.msg, record.args = "a malformed request was refused (%s)", (type(error).__name__,)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return record.levelno >= logging.getLogger().level


def mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the event without its secrets."""
    for name, value in event.items():
        event[name] = MASK if SECRET_NAMES.match(name) and value else masked(value)
    return event


def masked(value: Any) -> Any:
    """The value with secrets in its texts masked, and in maps by key."""
    if isinstance(value, str):
        value = shortened(value)
        for pattern, replacement in _IN_TEXT:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict):
        return {k: MASK if v and isinstance(k, str) and SECRET_NAMES.match(k) else masked(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return value


def shortened(text: str) -> str:
    """The text, or of a very long one its beginning and its last lines.

    The second part begins with a whole line: otherwise a secret could lose the name by which it is masked.
    """
    over = len(text) - MAX_TEXT
    if over <= 0:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]} … over {over} characters left out …\n{text[-half:].partition(chr(10))[2]}"
