"""The Mailchimp client: one method a call.

`transport` has connections, retries and errors, `paging` the walk over an audience, `download` the results, `wire` the
shapes. Every method may raise the errors of `errors`. A `member` argument is the id from a listing, a contact id or an
address (which becomes its subscriber hash). Calls that create something (batches, webhooks) are not retried after an
unknown outcome: they raise `Unreachable` with `outcome_unknown`, and the caller looks before it sends again.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Self, cast

import httpx

from sync.mailchimp.archive import DEFAULT_LIMITS, MEGABYTE, ArchiveLimits, read_in_thread
from sync.mailchimp.download import MAX_DOWNLOAD, download_results, read_batch
from sync.mailchimp.errors import NotFound, Unreachable
from sync.mailchimp.paging import PASSES, MemberPage, floor, walk
from sync.mailchimp.reports import CampaignReports
from sync.mailchimp.transport import PAGE_SIZE, TIMEOUT, USER_AGENT, CallRecord, MailchimpCall, RetryPolicy, Transport
from sync.mailchimp.wire import (
    AUDIENCE_EVENTS,
    AUDIENCE_SOURCES,
    AccountInfo,
    AudienceInfo,
    Batch,
    BatchOperation,
    BatchWebhook,
    Interest,
    InterestCategory,
    Member,
    OperationResult,
    Webhook,
    find_count,
    format_instant,
    read_member,
    read_permissions,
    subscriber_hash,
)

MEMBER_FIELDS = (
    "id",
    "email_address",
    "contact_id",
    "status",
    "merge_fields",
    "interests",
    "marketing_permissions",
    "timestamp_opt",
    "last_changed",
)
"""The keys a sync uses; without the rest, ``_links`` above all, a page is several times smaller."""

PAGE_FIELDS = ",".join(f"members.{name}" for name in MEMBER_FIELDS) + ",total_items"
SINGLE_FIELDS = ",".join(MEMBER_FIELDS)
SPOOL_SIZE = 4 * MEGABYTE
"""Bytes of a downloaded archive kept in memory; a larger one goes to a temporary file."""

SKEW_FROM_S = 5
"""Clocks that differ by less count as equal: a ``Date`` header is cut to whole seconds."""

MEMBERS = "/lists/{audience}/members"
MEMBER = "/lists/{audience}/members/{member}"


class MailchimpClient:
    """A client of one account. Use it as an async context manager, or call `close`.

    *base_url* overrides the address that the key's data centre gives (``/3.0`` is added if it has no path).
    *transport* replaces the network: requests go to it, and closing the client closes it.
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
        transport: httpx.AsyncBaseTransport | None = None,
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
            transport=transport,
        )
        self.reports = CampaignReports(self._transport)
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
        """The URL of this account's API, without a trailing slash."""
        return self._transport.base_url

    def share_with(self, others: int) -> None:
        """Share the account's connections equally with *others* processes that use it."""
        self._transport.share_with(others)

    def clock_offset(self) -> timedelta | None:
        """Return Mailchimp's clock minus ours in whole seconds, by the last answer; None before the first."""
        return self._transport.clock_offset()

    def skew(self) -> timedelta:
        """Return Mailchimp's clock minus ours in whole seconds, to date changes by; none where they hardly differ."""
        seconds = round((self.clock_offset() or timedelta(0)).total_seconds())
        return timedelta(seconds=seconds if abs(seconds) >= SKEW_FROM_S else 0)

    def now(self) -> datetime:
        """Return the present time by Mailchimp's clock (aware UTC); by ours before the first answer."""
        return datetime.now(UTC) + (self.clock_offset() or timedelta(0))

    # Account and audiences

    async def get_account(self) -> AccountInfo:
        """Return the account of this key. Raises BadKey when the key is refused."""
        return cast(AccountInfo, (await self._transport.send(MailchimpCall("GET", "/"))).body)

    async def iter_audiences(self) -> AsyncGenerator[AudienceInfo, None]:
        """Yield every audience of the account."""
        call = MailchimpCall("GET", "/lists", params={"exclude_fields": "lists._links,_links"})
        async with aclosing(self._transport.collect(call, "lists")) as rows:
            async for row in rows:
                yield cast(AudienceInfo, row)

    async def get_interest_categories(self, audience_id: str) -> list[InterestCategory]:
        """Return the interest categories of an audience. Raises NotFound when there is no such audience."""
        call = MailchimpCall("GET", "/lists/{audience}/interest-categories", {"audience": audience_id})
        rows = self._transport.collect(call, "categories")
        return [cast(InterestCategory, row) async for row in rows]

    async def iter_interests(self, audience_id: str, category_id: str) -> AsyncGenerator[Interest, None]:
        """Yield the interests of one category."""
        route = "/lists/{audience}/interest-categories/{category}/interests"
        ids = {"audience": audience_id, "category": category_id}
        async with aclosing(self._transport.collect(MailchimpCall("GET", route, ids), "interests")) as rows:
            async for row in rows:
                yield cast(Interest, row)

    async def get_permissions(self, audience_id: str) -> dict[str, str]:
        """Return the marketing permissions of an audience: id → text; none without GDPR fields, or without subscribers.

        Mailchimp lists them with each member only. Raises NotFound when there is no such audience.
        """
        page = await self.get_members_page(audience_id, status="subscribed", count=1)
        return {key: text for member in page.members for key, text, _ in read_permissions(member)}

    async def get_merge_fields(self, audience_id: str) -> list[dict[str, Any]]:
        """Return the merge fields of an audience, as Mailchimp describes them; EMAIL is not among them.

        Raises NotFound when there is no such audience.
        """
        call = MailchimpCall("GET", "/lists/{audience}/merge-fields", {"audience": audience_id})
        return [row async for row in self._transport.collect(call, "merge_fields", "tag")]

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
        call = MailchimpCall("GET", MEMBERS, {"audience": audience_id}, params, must_list="members")
        answer = await self._transport.send(call)
        members = [read_member(one) for one in answer.body["members"]]
        return MemberPage(members, find_count(answer.body.get("total_items")), answer.server_time, offset)

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

        To continue after a page, pass its `cursor` and the same *since*; the last page has the cursor None. `paging`
        says what a walk guarantees. *parallel* pages at a time
        are requested in a full walk only. *passes* are the status filters, walked one after the other; the default
        includes archived members.
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
            ids = _member_ids(audience_id, member)
            call = MailchimpCall("GET", MEMBER, ids, {"fields": SINGLE_FIELDS}, must_name="id")
            answer = await self._transport.send(call)
        except NotFound:
            return None
        found = read_member(answer.body)
        if not found.get("status"):  # whoever left would count as somebody who never did
            raise Unreachable(call.name, "a member without status", outcome_unknown=False)
        return found

    # Batches

    async def submit_batch(
        self, operations: Iterable[BatchOperation], *, before_send: Callable[[], Awaitable[None]] | None = None
    ) -> Batch:
        """Submit a batch and return it as first answered: pending, with all counts 0.

        *before_send* is called when the connection is open and the request about to be sent; an exception stops it.
        Not retried after an unknown outcome: search `iter_batches` by time and size first.
        """
        body = {"operations": [operation.to_wire() for operation in operations]}
        answer = await self._transport.send(
            MailchimpCall("POST", "/batches", body=body, repeatable=False, must_name="id", before_send=before_send)
        )
        return Batch.from_wire(answer.body)

    async def find_batch(self, batch_id: str) -> Batch | None:
        """Return a batch with a new results link; None when it was deleted or has expired."""
        try:
            answer = await self._transport.send(read_batch(batch_id))
        except NotFound:
            return None
        return Batch.from_wire(answer.body)

    async def iter_batches(self) -> AsyncGenerator[Batch, None]:
        """Yield the account's batches, other apps' too, in no order: that of the listing is not documented."""
        call = MailchimpCall("GET", "/batches", params={"exclude_fields": "batches._links,_links"})
        async with aclosing(self._transport.collect(call, "batches")) as rows:
            async for row in rows:
                yield Batch.from_wire(row)

    async def delete_batch(self, batch_id: str) -> bool:
        """Stop and delete a batch with its results. False when it was gone."""
        return await self._delete("/batches/{batch}", {"batch": batch_id})

    async def iter_results(self, batch_id: str) -> AsyncIterator[OperationResult]:
        """Yield the result of each operation of a finished batch, in no order.

        The batch is read first, since links expire in ten minutes. The archive is downloaded whole (to disk when
        large) before the first result. Raises NotFound for a batch that is gone, ResultsMissing for
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
        call = MailchimpCall("GET", "/lists/{audience}/webhooks", {"audience": audience_id})
        return [Webhook.from_wire(row) async for row in self._transport.collect(call, "webhooks")]

    async def add_webhook(self, audience_id: str, url: str) -> Webhook:
        """Register *url* for changes by people and admins in an audience, never for those by API.

        Mailchimp calls the URL first and refuses one that does not answer, or that is registered already.
        """
        body = {"url": url, "events": AUDIENCE_EVENTS, "sources": AUDIENCE_SOURCES}
        call = MailchimpCall(
            "POST",
            "/lists/{audience}/webhooks",
            {"audience": audience_id},
            body=body,
            repeatable=False,
            must_name="id",
        )
        return Webhook.from_wire((await self._transport.send(call)).body)

    async def delete_webhook(self, audience_id: str, webhook_id: str) -> bool:
        """Remove an audience's webhook; False when it was gone."""
        ids = {"audience": audience_id, "webhook": webhook_id}
        return await self._delete("/lists/{audience}/webhooks/{webhook}", ids)

    async def list_batch_webhooks(self) -> list[BatchWebhook]:
        """Return the account's batch webhooks; their URLs hold secrets."""
        rows = self._transport.collect(MailchimpCall("GET", "/batch-webhooks"), "webhooks")
        return [BatchWebhook.from_wire(row) async for row in rows]

    async def add_batch_webhook(self, url: str) -> BatchWebhook:
        """Register *url* for finished batches of the account, those of other apps included."""
        body = {"url": url, "enabled": True}
        call = MailchimpCall("POST", "/batch-webhooks", body=body, repeatable=False, must_name="id")
        return BatchWebhook.from_wire((await self._transport.send(call)).body)

    async def delete_batch_webhook(self, webhook_id: str) -> bool:
        """Remove a batch webhook; False when it was gone."""
        return await self._delete("/batch-webhooks/{webhook}", {"webhook": webhook_id})

    async def _delete(self, route: str, ids: Mapping[str, str]) -> bool:
        try:
            await self._transport.send(MailchimpCall("DELETE", route, ids))
        except NotFound:
            return False
        return True


def _member_ids(audience_id: str, member: str) -> dict[str, str]:
    return {"audience": audience_id, "member": subscriber_hash(member) if "@" in member else member}
