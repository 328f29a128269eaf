"""The settings file and the environment, as one frozen object.

``settings.example.ini`` documents every key; a test compares the two. Each key can be set by an environment
variable ``CIVIAPI_SECTION__KEY``, which overrides the file. An error is one sentence (``SettingsError``) with the file
or the variable, the key and the accepted values, and without secrets.
"""

import configparser
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from civiapi.store.address import SQLITE, trouble
from civiapi.store.clock import site_clock

PREFIX = "CIVIAPI_"
ALL, WEB, WORKER = ROLES = ("all", "web", "worker")
MIN_SECRET = 32  # characters of a signing secret
MIN_SECONDS = 0.1  # of a time-out
_WHERE = re.compile(r"\[([^\]]+)\] (\w+)")


class SettingsError(Exception):
    """The settings are invalid; the text names the key and the reason."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Addresses, keys and limits of the server."""

    role: str = ALL
    host: str = "127.0.0.1"
    port: int = 8080
    base_url: str = ""
    site_key: str = field(default="", repr=False)
    signing_secret: str = field(default="", repr=False)
    civicrm_contact_url: str = ""
    hsts_seconds: int = 0
    trusted_proxies: tuple[str, ...] = ()
    metrics_from: tuple[str, ...] = ("127.0.0.0/8", "::1")
    max_body: int = 4_194_304
    max_chained: int = 10_000
    call_seconds: float = 30.0
    idle_seconds: float = 75.0
    body_seconds: float = 60.0
    answer_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """The database, and the time zone of its site times."""

    url: str = field(default="sqlite:///civiapi.sqlite", repr=False)
    timezone: str = "UTC"

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(self.url.removeprefix(SQLITE)) if self.url.startswith(SQLITE) else None


@dataclass(frozen=True, slots=True)
class MailchimpSettings:
    """The connection to Mailchimp."""

    base_url: str = ""
    max_connections: int = 8
    batch_size: int = 1000
    poll_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """The behaviour of a sync."""

    overlap_seconds: int = 7200
    claim_seconds: int = 120
    heartbeat_seconds: int = 30
    crashed_minutes: float = 30.0
    fetch_parallel: int = 4
    respect_privacy: bool = True
    on_opt_out: str = "keep"
    brake_percent: float = 10.0
    brake_people: int = 25
    brake_additions: int = 0
    brake_data_percent: float = 10.0


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Whether scheduled jobs run here, and how often due ones are checked for."""

    enabled: bool = True
    tick_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Level and format of the log."""

    level: str = "info"
    format: str = "console"


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """For how many days what is over is kept; 0: for ever."""

    updates_days: float = 0.0
    batches_days: float = 0.0
    runs_days: float = 90.0
    events_days: float = 730.0
    job_logs_days: float = 0.0
    campaigns_days: float = 0.0


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Where alerts are sent: by e-mail, to a webhook, both or nowhere."""

    email_to: tuple[str, ...] = ()
    email_from: str = ""
    smtp_host: str = ""
    smtp_port: int = 587
    smtp_security: str = "starttls"
    smtp_user: str = ""
    smtp_password: str = field(default="", repr=False)
    webhook_url: str = field(default="", repr=False)
    webhook_secret: str = field(default="", repr=False)
    webhook_style: str = "json"
    digest: str = "off"


@dataclass(frozen=True, slots=True)
class UserSettings:
    """A ``[user:NAME]`` section: a key, its permissions, and its contact (created if not given)."""

    name: str
    api_key: str = field(default="", repr=False)
    permissions: frozenset[str] = frozenset()
    contact_id: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings."""

    server: ServerSettings = field(default_factory=ServerSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    mailchimp: MailchimpSettings = field(default_factory=MailchimpSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    log: LogSettings = field(default_factory=LogSettings)
    users: tuple[UserSettings, ...] = ()


def load_settings(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from a file (``None``: defaults alone) and the environment. Raises ``SettingsError``.

    A relative path of a SQLite database is one from the folder of the settings file; without a file, from the working
    directory. It is absolute in the result.
    """
    in_file = _read_file(path)
    variables = _variables(environ)
    try:
        settings = _build(_overlaid(in_file, variables, environ))
    except SettingsError as error:
        origin = _origin(str(error), path, in_file, variables)
        raise SettingsError(f"{origin}: {error}" if origin else str(error)) from error
    return replace(settings, database=_located(settings.database, path.parent if path else Path()))


def _located(database: DatabaseSettings, folder: Path) -> DatabaseSettings:
    file = database.file
    return database if file is None else replace(database, url=f"{SQLITE}{folder.absolute() / file}")


def _build(raw: Mapping[str, Mapping[str, str]]) -> Settings:
    sections: dict[str, Any] = {}
    users: list[UserSettings] = []
    kinds = {f.name: f.default_factory for f in fields(Settings) if f.name != "users"}
    for name, values in raw.items():
        if name.startswith("user:"):
            users.append(_user(name.removeprefix("user:"), values))
        elif name in kinds:
            sections[name] = _section(name, kinds[name], values)
        else:
            raise SettingsError(f"[{name}] is not a section of the settings")
    settings = Settings(**sections, users=tuple(users))
    _check(settings)
    return settings


def _read_file(path: Path | None) -> dict[str, dict[str, str]]:
    if path is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None, strict=True, inline_comment_prefixes=None)
    try:
        parser.read_string(path.read_text("utf-8"), source=str(path))
    except OSError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        where = f" at line {line}" if line else ""
        raise SettingsError(f"The settings file {path} cannot be understood{where}") from error
    return {name: dict(parser.items(name)) for name in parser.sections()}


def _variables(environ: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """The environment variables that set a key, by section and key."""
    found: dict[tuple[str, str], str] = {}
    for name in environ:
        if name.startswith(PREFIX) and "__" in name:
            section, _, key = name.removeprefix(PREFIX).partition("__")
            section = section.lower()
            if section.startswith("user_"):
                section = "user:" + section.removeprefix("user_")
            found[section, key.lower()] = name
    return found


def _overlaid(
    in_file: Mapping[str, Mapping[str, str]], variables: Mapping[tuple[str, str], str], environ: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    raw = {section: dict(values) for section, values in in_file.items()}
    for (section, key), name in variables.items():
        raw.setdefault(section, {})[key] = environ[name]
    return raw


def _origin(
    message: str,
    path: Path | None,
    in_file: Mapping[str, Mapping[str, str]],
    variables: Mapping[tuple[str, str], str],
) -> str:
    """Where the mistake of a message, which begins with ``[section] key``, is: a variable, the file, or nowhere ("").

    A section that the file does not have is that of the first variable that sets a key of it.
    """
    named = _WHERE.match(message)
    section, key = named.groups() if named else ("", "")
    if (section, key) in variables:
        return variables[section, key]
    theirs = [name for (one, _), name in variables.items() if one == section and section not in in_file]
    return theirs[0] if theirs else str(path or "")


def _section(name: str, kind: Callable[[], Any] | Any, values: Mapping[str, str]) -> Any:
    default = kind()
    known = {f.name: getattr(default, f.name) for f in fields(default)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingsError(f"[{name}] {unknown[0]} is not a setting")
    return type(default)(**{key: _convert(f"[{name}] {key}", text, known[key]) for key, text in values.items()})


def _user(name: str, values: Mapping[str, str]) -> UserSettings:
    unknown = sorted(set(values) - {"api_key", "permissions", "contact_id"})
    if unknown:
        raise SettingsError(f"[user:{name}] {unknown[0]} is not a setting")
    if not values.get("api_key"):
        raise SettingsError(f"[user:{name}] api_key is missing")
    contact = values.get("contact_id", "").strip()
    return UserSettings(
        name=name,
        api_key=values["api_key"],
        permissions=frozenset(p.strip() for p in values.get("permissions", "").split(",") if p.strip()),
        contact_id=_convert(f"[user:{name}] contact_id", contact, 0) if contact else None,
    )


_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False, "1": True, "0": False}


def _convert(where: str, text: str, default: Any) -> Any:
    text = text.strip()
    if isinstance(default, bool):
        if text.lower() not in _BOOLEANS:
            raise SettingsError(f"{where} must be yes or no")
        return _BOOLEANS[text.lower()]
    if isinstance(default, int | float):
        try:
            number = type(default)(text)
        except ValueError as error:
            raise SettingsError(f"{where} must be a number") from error
        if not 0 <= number < float("inf"):
            raise SettingsError(f"{where} must not be negative or endless")
        return number
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _check(settings: Settings) -> None:
    try:
        site_clock(settings.database.timezone)
    except ValueError as error:
        raise SettingsError(f"[database] timezone: {error}") from error
    for wrong, message in _rules(settings):
        if wrong:
            raise SettingsError(message)


def _rules(settings: Settings) -> Iterator[tuple[bool, str]]:
    """The rules for values: whether each is broken, and its message."""
    server, mailchimp, sync, log = settings.server, settings.mailchimp, settings.sync, settings.log
    yield server.role not in ROLES, "[server] role must be all, web or worker"
    yield server.port > 65535, "[server] port must be from 0 to 65535"
    yield not _is_web_address(server.base_url), "[server] base_url must begin with http:// or https:// and name a host"
    yield 0 < len(server.site_key) < 8, "[server] site_key must have at least 8 characters"
    secret = server.signing_secret
    yield 0 < len(secret) < MIN_SECRET, f"[server] signing_secret must have at least {MIN_SECRET} characters"
    shown = (server.site_key, *(user.api_key for user in settings.users))
    yield bool(secret) and secret in shown, "[server] signing_secret must not be a key that callers send"
    link = server.civicrm_contact_url
    yield bool(link) and not _is_web_address(link), "[server] civicrm_contact_url must begin with http:// or https://"
    yield bool(link) and "{id}" not in link, "[server] civicrm_contact_url must contain {id}"
    yield server.max_body < 1, "[server] max_body must be at least 1"
    yield server.max_chained < 1, "[server] max_chained must be at least 1"
    for name in ("call_seconds", "idle_seconds", "body_seconds", "answer_seconds"):
        yield getattr(server, name) < MIN_SECONDS, f"[server] {name} must be at least {MIN_SECONDS}"
    for proxy in server.trusted_proxies:
        yield not _is_network(proxy), f"[server] trusted_proxies: '{proxy}' is not an address or a network"
    for network in server.metrics_from:
        yield not _is_network(network), f"[server] metrics_from: '{network}' is not an address or a network"
    yield bool(wrong := trouble(settings.database.url)), f"[database] url {wrong}"
    yield not _is_web_address(mailchimp.base_url), "[mailchimp] base_url must begin with http:// or https://"
    yield not 1 <= mailchimp.batch_size <= 1000, "[mailchimp] batch_size must be from 1 to 1000"
    yield not 1 <= mailchimp.max_connections <= 10, "[mailchimp] max_connections must be from 1 to 10"
    yield mailchimp.poll_seconds < 0.01, "[mailchimp] poll_seconds must be at least 0.01"
    yield sync.heartbeat_seconds < 1, "[sync] heartbeat_seconds must be at least 1"
    yield sync.claim_seconds < 1, "[sync] claim_seconds must be at least 1"
    yield not 1 <= sync.fetch_parallel <= 10, "[sync] fetch_parallel must be from 1 to 10"
    yield sync.on_opt_out not in ("keep", "unsubscribe"), "[sync] on_opt_out must be keep or unsubscribe"
    yield sync.brake_percent > 100, "[sync] brake_percent must be from 0 to 100"
    yield sync.brake_data_percent > 100, "[sync] brake_data_percent must be from 0 to 100"
    yield settings.scheduler.tick_seconds < 0.01, "[scheduler] tick_seconds must be at least 0.01"
    yield (
        log.level.lower() not in ("debug", "info", "warning", "error"),
        ("[log] level must be debug, info, warning or error"),
    )
    yield log.format not in ("console", "json"), "[log] format must be console or json"
    yield from _alert_rules(settings.alerts)
    keys = [user.api_key for user in settings.users]
    yield len(set(keys)) < len(keys), "two [user:NAME] sections have the same api_key"


def _alert_rules(alerts: AlertSettings) -> Iterator[tuple[bool, str]]:
    mailed = bool(alerts.email_to)
    yield mailed and not alerts.smtp_host, "[alerts] smtp_host is missing: email_to needs a mail server"
    yield mailed and "@" not in alerts.email_from, "[alerts] email_from must be an e-mail address"
    for key, one in (*(("email_to", one) for one in alerts.email_to), ("email_from", alerts.email_from)):
        yield bool(one) and (one.count("@") != 1 or not one.isprintable()), f"[alerts] {key} is not valid"
    yield not 0 < alerts.smtp_port <= 65535, "[alerts] smtp_port must be from 1 to 65535"
    yield (
        alerts.smtp_security not in ("starttls", "tls", "none"),
        "[alerts] smtp_security must be starttls, tls or none",
    )
    secret = bool(alerts.smtp_user) and alerts.smtp_security == "none"
    yield secret, "[alerts] smtp_user needs smtp_security: a password is not sent unencrypted"
    yield not _is_web_address(alerts.webhook_url), "[alerts] webhook_url must begin with http:// or https://"
    yield alerts.webhook_style not in ("json", "slack", "teams"), "[alerts] webhook_style must be json, slack or teams"
    yield alerts.digest not in ("off", "daily", "weekly"), "[alerts] digest must be off, daily or weekly"


def _is_web_address(text: str) -> bool:
    """Whether this is an HTTP URL, or empty."""
    if not text:
        return True
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # an invalid port or bracket
        return False


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
