"""Fixtures every suite shares: a fresh migrated store, an API over it, and a short way to ask it something."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import sync.tables  # noqa: F401  registers the extension's tables
from civiapi.call import SYSTEM, Call, Caller
from civiapi.dispatch import Api
from civiapi.store.engine import Store, open_store
from civiapi.store.migrate import migrate
from entities import catalogue

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A new SQLite database with the schema and the seed rows; the site lives in UTC."""
    opened = await open_store(f"sqlite:///{tmp_path / 'site.sqlite'}")
    await migrate(opened)
    yield opened
    await opened.close()


@pytest.fixture
def api(store: Store) -> Api:
    return Api(store, catalogue())


@pytest.fixture
def call(api: Api) -> Ask:
    """``await call("Email", "get", {...})``: the answer as every adapter gets it, errors as envelopes."""

    async def ask(entity: str, action: str, params: dict[str, Any] | None = None, caller: Caller = SYSTEM) -> Any:
        return await api.respond(Call(entity, action, params or {}, caller))

    return ask
