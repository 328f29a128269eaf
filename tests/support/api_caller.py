"""The API over a linked site, for tests that call the sync as a page or a script does."""

from typing import Any

from civiapi.api.call import SYSTEM, Call, Caller
from civiapi.api.dispatch import Api
from entities import catalogue
from sync.service import SyncService
from tests.support.linked_site import Site


class ApiCaller:
    """``await ask("getprogress", group_id=12)``: the values of a Mailchimpsync call that must succeed."""

    def __init__(self, site: Site) -> None:
        self.sync = SyncService(site.store, site.clients, site.ctx.settings, sizes=site.ctx.sizes)
        self.api = Api(site.store, catalogue(), self.sync)

    async def __call__(self, action: str, entity: str = "Mailchimpsync", **params: Any) -> Any:
        answer = await self.answer(action, entity, **params)
        assert answer["is_error"] == 0, answer
        return answer["values"]

    async def answer(self, action: str, entity: str = "Mailchimpsync", caller: Caller = SYSTEM, **params: Any) -> Any:
        """The whole answer, good or bad."""
        return await self.api.respond(Call(entity, action, params, caller))
