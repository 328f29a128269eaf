"""What the actions of ``Mailchimpsync`` call on the sync service (``sync/service.py``).

A Protocol, because the sync is a layer above the API. ``civiapi/app.py`` passes the service to the API, where mypy
compares the two. Every method may raise ``SyncError``; what the methods do is documented at the service.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import ColumnElement


class SyncApi(Protocol):
    """The sync service as actions see it."""

    @property
    def privacy(self) -> str: ...

    @property
    def quiet(self) -> timedelta: ...

    async def fetch_and_reconcile(
        self,
        *,
        group_id: int | None = None,
        max_time: float = 300,
        since: datetime | str | None = None,
        stop_on: str | None = None,
        force_restart: bool = False,
        with_data: bool = False,
        confirm: bool = False,
        is_scheduled: bool = False,
    ) -> list[dict[str, Any]]: ...

    async def plan(
        self,
        group_id: int,
        *,
        plan_id: str = "",
        kept: bool = False,
        since: datetime | str | None = None,
        with_data: bool = False,
        kinds: tuple[str, ...] = (),
        search: str = "",
        limit: int = 25,
        offset: int = 0,
    ) -> dict[str, Any]: ...

    async def abort(self, group_id: int) -> None: ...

    async def get_status(self, *, batches: bool = False) -> dict[str, dict[str, Any]]: ...

    async def get_progress(self, group_id: int | None = None) -> dict[str, dict[str, Any]]: ...

    async def get_runs(
        self, group_id: int | None = None, *, limit: int = 25, offset: int = 0
    ) -> list[dict[str, Any]]: ...

    async def get_run(self, run_id: int, shown: Any) -> dict[str, Any]: ...

    async def plan_undo(self, run_id: int, shown: Any) -> dict[str, Any]: ...

    async def undo_run(self, run_id: int) -> dict[str, Any]: ...

    async def get_timeline(
        self,
        *,
        group_id: int | None = None,
        list_id: str = "",
        kinds: tuple[str, ...] = (),
        since: datetime | None = None,
        before: datetime | None = None,
        limit: int = 25,
        offset: int = 0,
    ) -> list[dict[str, Any]]: ...

    async def import_campaigns(
        self,
        *,
        group_id: int | None = None,
        since: datetime | str | None = None,
        figures: bool = False,
        max_time: float = 300,
    ) -> list[dict[str, Any]]: ...

    async def get_campaigns(
        self, *, group_id: int | None = None, contact_id: int | None = None, limit: int = 25, offset: int = 0
    ) -> list[dict[str, Any]]: ...

    async def clean_up(self) -> dict[str, int]: ...

    async def get_alerts(self, *, limit: int = 25, offset: int = 0) -> list[dict[str, Any]]: ...

    async def test_alerts(self) -> list[dict[str, str]]: ...

    async def get_permissions(self, group_id: int) -> list[dict[str, str]]: ...

    async def get_failures(self, group_id: int) -> list[dict[str, Any]]: ...

    async def get_daily(self, group_id: int, days: int) -> list[dict[str, Any]]: ...

    async def explain(
        self, *, contact_id: int | None = None, email: str = "", group_id: int | None = None
    ) -> list[dict[str, Any]]: ...

    async def sync_member(
        self, group_id: int, *, contact_id: int | None = None, email: str = ""
    ) -> list[dict[str, Any]]: ...

    async def include_contacts(self, contact_ids: Sequence[int]) -> int: ...

    async def include_matching(self, list_id: str, where: Sequence[ColumnElement[bool]]) -> dict[str, int]: ...

    async def submit_batches(self) -> dict[str, int]: ...

    async def process_completed(self, row_id: int, *, force: bool = False) -> dict[str, Any]: ...

    async def retry_webhook_event(self, event_id: int) -> bool: ...

    async def fetch_account_info(self, api_key: str) -> dict[str, Any]: ...

    async def update_config(self, config: Any, digest: str | None = None) -> Mapping[str, Any]: ...

    async def get_merge_fields(self, group_id: int) -> dict[str, Any]: ...

    async def set_merge_fields(
        self, group_id: int, *, rules: Any = None, names: bool | None = None
    ) -> dict[str, Any]: ...

    async def count_removal(self, group_id: int) -> dict[str, int]: ...

    async def update_webhook(
        self, *, process: str, api_key: str, list_id: str = "", hook_id: str = ""
    ) -> Mapping[str, Any]: ...
