"""The settings file and the environment, as one frozen object.

``settings.example.ini`` documents every key; a test holds the two together. Each key can be given as an environment
variable ``CIVIAPI_SECTION__KEY``, which wins over the file. A mistake is one sentence (``SettingsError``) that names
the file, the key and what was expected; secrets are never repeated in it.
"""

import configparser
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from civiapi.store.clock import site_clock

PREFIX = "CIVIAPI_"


class SettingsError(Exception):
    """The settings cannot be used; the text says which key and why."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server listens and what it calls itself."""

    host: str = "127.0.0.1"
    port: int = 8080
    base_url: str = ""
    site_key: str = field(default="", repr=False)
    trusted_proxies: tuple[str, ...] = ()
    max_body: int = 16_777_216


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Which database, and the zone of its zone-less times."""

    url: str = field(default="sqlite:///civiapi.sqlite", repr=False)
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class MailchimpSettings:
    """How Mailchimp is reached."""

    base_url: str = ""
    max_connections: int = 8
    batch_size: int = 1000
    poll_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """How a sync behaves."""

    overlap_seconds: int = 7200
    claim_seconds: int = 120
    heartbeat_seconds: int = 30
    fetch_parallel: int = 4
    respect_privacy: bool = True


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Whether scheduled jobs run here, and how often we look for due ones."""

    enabled: bool = True
    tick_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how it looks."""

    level: str = "info"
    format: str = "console"


@dataclass(frozen=True, slots=True)
class UserSettings:
    """A ``[user:NAME]`` section: a key, what it may do, and the contact it stands for (one is made if not given)."""

    name: str
    api_key: str = field(default="", repr=False)
    permissions: frozenset[str] = frozenset()
    contact_id: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    server: ServerSettings = field(default_factory=ServerSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    mailchimp: MailchimpSettings = field(default_factory=MailchimpSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    log: LogSettings = field(default_factory=LogSettings)
    users: tuple[UserSettings, ...] = ()


def load_settings(path: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from a file (``None``: defaults alone) and the environment. Raises ``SettingsError``."""
    raw = _read_file(path)
    _overlay_environment(raw, environ)
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


def _overlay_environment(raw: dict[str, dict[str, str]], environ: Mapping[str, str]) -> None:
    for name, value in environ.items():
        if name.startswith(PREFIX) and "__" in name:
            section, _, key = name.removeprefix(PREFIX).partition("__")
            section = section.lower()
            if section.startswith("user_"):
                section = "user:" + section.removeprefix("user_")
            raw.setdefault(section, {})[key.lower()] = value


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
        if number < 0:
            raise SettingsError(f"{where} must not be negative")
        return number
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _check(settings: Settings) -> None:
    try:
        site_clock(settings.database.timezone)
    except ValueError as error:
        raise SettingsError(f"[database] timezone: {error}") from error
    if settings.server.site_key and len(settings.server.site_key) < 8:
        raise SettingsError("[server] site_key must have at least 8 characters")
    if settings.log.level.lower() not in ("debug", "info", "warning", "error"):
        raise SettingsError("[log] level must be debug, info, warning or error")
    if settings.log.format not in ("console", "json"):
        raise SettingsError("[log] format must be console or json")
    if not 1 <= settings.mailchimp.batch_size <= 1000:
        raise SettingsError("[mailchimp] batch_size must be from 1 to 1000")
    if not 1 <= settings.mailchimp.max_connections <= 10:
        raise SettingsError("[mailchimp] max_connections must be from 1 to 10")
    keys = [user.api_key for user in settings.users]
    if len(set(keys)) < len(keys):
        raise SettingsError("two [user:NAME] sections have the same api_key")
