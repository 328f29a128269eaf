"""The API over a small linked site: for suites that ask the sync something as a page or a script would."""

from typing import Any

from civiapi.call import SYSTEM, Call, Caller
from civiapi.dispatch import Api
from entities import catalogue
from sync.service import SyncService
from tests.contract.sites import Site


class Asked:
    """``await ask("getprogress", group_id=12)``: the values of a Mailchimpsync call that must succeed."""

    def __init__(self, site: Site) -> None:
        self.sync = SyncService(site.store, site.clients, site.ctx.options)
        self.api = Api(site.store, catalogue(), self.sync)

    async def __call__(self, action: str, entity: str = "Mailchimpsync", **params: Any) -> Any:
        answer = await self.answer(action, entity, **params)
        assert answer["is_error"] == 0, answer
        return answer["values"]

    async def answer(self, action: str, entity: str = "Mailchimpsync", caller: Caller = SYSTEM, **params: Any) -> Any:
        """The whole answer, good or bad."""
        return await self.api.respond(Call(entity, action, params, caller))
