"""What the sync asks of Mailchimp, one method a call: paths, parameters, shapes.

Connections, retries and errors are `transport.py`; walking an audience is `paging.py`; downloads are `results.py`;
the shapes are in `wire.py`.
No SQL and no policy here. Every method may raise the errors of `errors.py`.

What a newcomer trips over: every collection pages with a default of 10, so all ask for 1000; a `member` argument
is the id from a listing, a contact id or an address (an address becomes its subscriber hash); calls that create
something (POST of members, batches, webhooks) are sent once only when their outcome is unknown, and raise
`Unreachable` with `outcome_unknown` for the caller to look before sending again.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Self, cast

import httpx

from sync.mailchimp.archive import DEFAULT_LIMITS, MEGABYTE, ArchiveLimits, read_in_thread
from sync.mailchimp.errors import MethodNotAllowed, NotFound
from sync.mailchimp.paging import PASSES, MemberPage, floor, walk
from sync.mailchimp.results import MAX_DOWNLOAD, download_results
from sync.mailchimp.transport import PAGE_SIZE, TIMEOUT, USER_AGENT, Call, CallRecord, RetryPolicy, Transport
from sync.mailchimp.wire import (
    AUDIENCE_EVENTS,
    AUDIENCE_SOURCES,
    SKIP_MERGE_VALIDATION,
    Account,
    Audience,
    Batch,
    BatchOperation,
    BatchWebhook,
    Interest,
    InterestCategory,
    Member,
    MergeField,
    OperationResult,
    Webhook,
    format_instant,
    subscriber_hash,
    tags_body,
)

MEMBER_FIELDS = (
    "id",
    "email_address",
    "contact_id",
    "status",
    "merge_fields",
    "interests",
    "timestamp_opt",
    "last_changed",
)
"""What a sync uses of a member; leaving out the rest, ``_links`` above all, makes a page several times smaller."""

PAGE_FIELDS = ",".join(f"members.{name}" for name in MEMBER_FIELDS) + ",total_items"
SINGLE_FIELDS = ",".join(MEMBER_FIELDS)
SPOOL_SIZE = 4 * MEGABYTE
"""Bytes of a downloaded archive kept in memory; a larger one goes to a temporary file."""

MEMBERS = "/lists/{audience}/members"
MEMBER = "/lists/{audience}/members/{member}"


class MailchimpClient:
    """One account's Mailchimp. Use it as an async context manager, or close it with `close`.

    *base_url* overrides the address that the key's data centre gives (``/3.0`` is added if it has no path).
    Raises InvalidApiKey, before any request, for a key that names no data centre.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = "",
        max_connections: int = 8,
        retry: RetryPolicy | None = None,
        user_agent: str = USER_AGENT,
        timeout: httpx.Timeout = TIMEOUT,
        on_call: Callable[[CallRecord], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        archive_limits: ArchiveLimits = DEFAULT_LIMITS,
        max_download: int = MAX_DOWNLOAD,
    ) -> None:
        self._transport = Transport(
            api_key,
            base_url=base_url,
            max_connections=max_connections,
            retry=retry,
            user_agent=user_agent,
            timeout=timeout,
            on_call=on_call,
            now=now,
        )
        self._archive_limits = archive_limits
        self._max_download = max_download

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    @property
    def base_url(self) -> str:
        """Where this account's API lives, without a trailing slash."""
        return self._transport.base_url

    def share_with(self, others: int) -> None:
        """Leave *others*, processes at work on the same account, an equal part of its connections each."""
        self._transport.share_with(others)

    def clock_offset(self) -> timedelta | None:
        """Return Mailchimp's clock minus ours in whole seconds, by the last answer; None before the first."""
        return self._transport.clock_offset()

    # Account and audiences

    async def get_account(self) -> Account:
        """Return whose key this is: the cheapest way to check one. Raises BadKey when it is refused."""
        return cast(Account, await self._get("/"))

    async def iter_audiences(self) -> AsyncGenerator[Audience, None]:
        """Yield every audience of the account."""
        call = Call("GET", "/lists", params={"exclude_fields": "lists._links,_links"})
        async with aclosing(self._transport.collect(call, "lists")) as rows:
            async for row in rows:
                yield cast(Audience, row)

    async def get_interest_categories(self, audience_id: str) -> list[InterestCategory]:
        """Return the interest categories of an audience. Raises NotFound when there is no such audience."""
        call = Call("GET", "/lists/{audience}/interest-categories", {"audience": audience_id})
        rows = self._transport.collect(call, "categories")
        return [cast(InterestCategory, row) async for row in rows]

    async def iter_interests(self, audience_id: str, category_id: str) -> AsyncGenerator[Interest, None]:
        """Yield the interests of one category."""
        route = "/lists/{audience}/interest-categories/{category}/interests"
        ids = {"audience": audience_id, "category": category_id}
        async with aclosing(self._transport.collect(Call("GET", route, ids), "interests")) as rows:
            async for row in rows:
                yield cast(Interest, row)

    async def get_merge_fields(self, audience_id: str) -> list[MergeField]:
        """Return the merge fields of an audience; EMAIL is not among them."""
        call = Call("GET", "/lists/{audience}/merge-fields", {"audience": audience_id})
        rows = self._transport.collect(call, "merge_fields")
        return [cast(MergeField, row) async for row in rows]

    # Members, many

    async def get_members_page(
        self,
        audience_id: str,
        *,
        since: datetime | None = None,
        before: datetime | None = None,
        status: str | None = None,
        offset: int = 0,
        count: int = PAGE_SIZE,
        sort_field: str | None = None,
        sort_dir: str | None = None,
    ) -> MemberPage:
        """Return one page of members, trimmed to `MEMBER_FIELDS`; its cursor is None.

        *since* and *before* compare with `last_changed` and need a zone; a *since* before 2010 is left out, as
        Mailchimp hangs on those. Without *status*, whether archived members come is not documented.
        Source: Mailchimp Marketing API, list members.
        """
        since = floor(since)
        wanted = {
            "count": str(count),
            "offset": str(offset),
            "fields": PAGE_FIELDS,
            "status": status,
            "since_last_changed": format_instant(since) if since else None,
            "before_last_changed": format_instant(before) if before else None,
            "sort_field": sort_field,
            "sort_dir": sort_dir,
        }
        params = {name: value for name, value in wanted.items() if value is not None}
        answer = await self._transport.send(Call("GET", MEMBERS, {"audience": audience_id}, params))
        members = cast("list[Member]", answer.body.get("members") or [])
        total = int(answer.body.get("total_items") or 0)
        return MemberPage(members, total, answer.server_time, offset)

    def iter_member_pages(
        self,
        audience_id: str,
        *,
        since: datetime | None = None,
        cursor: Mapping[str, Any] | None = None,
        parallel: int = 1,
        count: int = PAGE_SIZE,
        passes: Sequence[str | None] = PASSES,
    ) -> AsyncGenerator[MemberPage, None]:
        """Yield an audience's members page by page, all of them or those changed since *since* (a zone is needed).

        Store a page's `cursor` with its rows and give it back, with the same *since*, to go on after that page;
        the page whose cursor is None is the last. `paging` tells what a walk promises. *parallel* pages at a time
        are asked for in a full walk only. *passes* are the status filters walked in turn; the default asks for
        archived members as well.
        """

        async def ask(status: str | None, start: datetime | None, offset: int) -> MemberPage:
            field, order = ("last_changed", "ASC") if start is not None else (None, None)
            return await self.get_members_page(
                audience_id,
                since=start,
                status=status,
                offset=offset,
                count=count,
                sort_field=field,
                sort_dir=order,
            )

        return walk(ask, since=since, count=count, parallel=parallel, passes=passes, cursor=cursor)

    # Members, one

    async def find_member(self, audience_id: str, member: str) -> Member | None:
        """Return a member by id, contact id or address; None when there is none (or the audience is unknown)."""
        try:
            body = await self._get(MEMBER, _member_ids(audience_id, member), {"fields": SINGLE_FIELDS})
        except NotFound:
            return None
        return cast(Member, body)

    async def put_member(
        self, audience_id: str, member: str, body: Mapping[str, Any], *, skip_merge_validation: bool = True
    ) -> Member:
        """Create or update a member and return it; what *body* does not name stays. Safe to repeat.

        A `status_if_new` alone does not bring an archived member back. An `email_address` in *body* must be the
        one *member* stands for; to change an address use `patch_member`.
        """
        return await self._write("PUT", MEMBER, _member_ids(audience_id, member), body, skip_merge_validation)

    async def patch_member(
        self, audience_id: str, member: str, body: Mapping[str, Any], *, skip_merge_validation: bool = True
    ) -> Member:
        """Update a member and return it. A new `email_address` gives it a new `id`. Raises NotFound without one.

        A change of address whose answer got lost and was repeated ends in NotFound as well: the old id is gone.
        """
        return await self._write("PATCH", MEMBER, _member_ids(audience_id, member), body, skip_merge_validation)

    async def post_member(
        self, audience_id: str, body: Mapping[str, Any], *, skip_merge_validation: bool = True
    ) -> Member:
        """Create a member, or revive an archived one, and return it.

        Raises Refused with `is_member_exists` when it is there. Not repeated after an unknown outcome.
        """
        return await self._write(
            "POST", MEMBERS, {"audience": audience_id}, body, skip_merge_validation, repeatable=False
        )

    async def archive_member(self, audience_id: str, member: str) -> None:
        """Archive a member; it is archived afterwards, be it that it was before.

        Raises NotFound when there is none, MethodNotAllowed when it cannot be archived (cleaned, pending).
        """
        try:
            await self._transport.send(Call("DELETE", MEMBER, _member_ids(audience_id, member)))
        except MethodNotAllowed:
            found = await self.find_member(audience_id, member)
            if found is None or found.get("status") != "archived":
                raise

    async def update_tags(self, audience_id: str, member: str, tags: Mapping[str, bool]) -> None:
        """Add (True) and remove (False) tags of a member, starting no automations. Raises NotFound without one."""
        ids = _member_ids(audience_id, member)
        await self._transport.send(Call("POST", MEMBER + "/tags", ids, body=tags_body(tags)))

    # Batches

    async def submit_batch(
        self, operations: Iterable[BatchOperation], *, make_sure: Callable[[], Awaitable[None]] | None = None
    ) -> Batch:
        """Hand over a batch and return it as first told: pending, with all counts 0.

        *make_sure* is called when the connection stands and the request is about to leave; what it raises stops it.
        Not repeated after an unknown outcome: look through `iter_recent_batches` by time and size first.
        """
        body = {"operations": [operation.to_wire() for operation in operations]}
        answer = await self._transport.send(Call("POST", "/batches", body=body, repeatable=False, make_sure=make_sure))
        return Batch.from_wire(answer.body)

    async def find_batch(self, batch_id: str) -> Batch | None:
        """Return a batch as it stands, with a fresh results link; None when it was deleted or has expired."""
        try:
            return Batch.from_wire(await self._get("/batches/{batch}", {"batch": batch_id}))
        except NotFound:
            return None

    async def iter_recent_batches(self, since: datetime) -> AsyncGenerator[Batch, None]:
        """Yield the account's batches submitted at or after *since* (aware; Mailchimp's clock), in no order.

        Other apps' batches are among them. The order of the listing is not documented, so all of it is read.
        """
        call = Call("GET", "/batches", params={"exclude_fields": "batches._links,_links"})
        async with aclosing(self._transport.collect(call, "batches")) as rows:
            async for row in rows:
                batch = Batch.from_wire(row)
                if batch.submitted_at is not None and batch.submitted_at >= since:
                    yield batch

    async def delete_batch(self, batch_id: str) -> bool:
        """Stop and forget a batch; its results are lost. False when there was none any more."""
        return await self._delete("/batches/{batch}", {"batch": batch_id})

    async def iter_results(self, batch_id: str) -> AsyncIterator[OperationResult]:
        """Yield what became of each operation of a finished batch, in no order.

        The batch is asked for right before, since links live ten minutes. The archive is downloaded whole (to
        disk when large) before the first result. Raises NotFound for a batch that is gone, ResultsMissing for
        one with nothing to download, BadArchive for an archive that cannot be trusted.
        """
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_SIZE) as spool:
            archive = cast(IO[bytes], spool)
            await download_results(self._transport, batch_id, archive, limit=self._max_download)
            async for result in read_in_thread(archive, limits=self._archive_limits):
                yield result

    # Webhooks

    async def list_webhooks(self, audience_id: str) -> list[Webhook]:
        """Return an audience's webhooks; their URLs hold secrets."""
        body = await self._get("/lists/{audience}/webhooks", {"audience": audience_id})
        return [Webhook.from_wire(row) for row in body.get("webhooks") or []]

    async def add_webhook(self, audience_id: str, url: str) -> Webhook:
        """Register *url* for what people and admins change in an audience, never for changes by API.

        Mailchimp calls the URL first and refuses one that does not answer, or that is registered already.
        """
        body = {"url": url, "events": AUDIENCE_EVENTS, "sources": AUDIENCE_SOURCES}
        call = Call("POST", "/lists/{audience}/webhooks", {"audience": audience_id}, body=body, repeatable=False)
        return Webhook.from_wire((await self._transport.send(call)).body)

    async def delete_webhook(self, audience_id: str, webhook_id: str) -> bool:
        """Remove an audience's webhook; False when it was gone."""
        ids = {"audience": audience_id, "webhook": webhook_id}
        return await self._delete("/lists/{audience}/webhooks/{webhook}", ids)

    async def list_batch_webhooks(self) -> list[BatchWebhook]:
        """Return the account's batch webhooks; their URLs hold secrets."""
        rows = self._transport.collect(Call("GET", "/batch-webhooks"), "webhooks")
        return [BatchWebhook.from_wire(row) async for row in rows]

    async def add_batch_webhook(self, url: str) -> BatchWebhook:
        """Register *url* for finished batches, every app's of this account."""
        call = Call("POST", "/batch-webhooks", body={"url": url, "enabled": True}, repeatable=False)
        return BatchWebhook.from_wire((await self._transport.send(call)).body)

    async def delete_batch_webhook(self, webhook_id: str) -> bool:
        """Remove a batch webhook; False when it was gone."""
        return await self._delete("/batch-webhooks/{webhook}", {"webhook": webhook_id})

    # What the methods above share

    async def _get(
        self, route: str, ids: Mapping[str, str] | None = None, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return (await self._transport.send(Call("GET", route, ids or {}, params or {}))).body

    async def _delete(self, route: str, ids: Mapping[str, str]) -> bool:
        try:
            await self._transport.send(Call("DELETE", route, ids))
        except NotFound:
            return False
        return True

    async def _write(
        self,
        method: str,
        route: str,
        ids: Mapping[str, str],
        body: Mapping[str, Any],
        skip_merge_validation: bool,
        *,
        repeatable: bool = True,
    ) -> Member:
        params = SKIP_MERGE_VALIDATION if skip_merge_validation else {}
        answer = await self._transport.send(Call(method, route, ids, params, body, repeatable))
        return cast(Member, answer.body)


def _member_ids(audience_id: str, member: str) -> dict[str, str]:
    return {"audience": audience_id, "member": subscriber_hash(member) if "@" in member else member}
