"""The calls on one member that the sync makes only inside batches: single, or as operations of another app's batch."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sync.mailchimp.transport import MailchimpCall, Transport
from sync.mailchimp.wire import SKIP_MERGE_VALIDATION, BatchOperation, subscriber_hash, tags_body

MEMBERS = "/lists/{audience}/members"
MEMBER = MEMBERS + "/{member}"


class MemberCalls:
    """Member calls over the client's transport: with its retries, and its errors."""

    def __init__(self, transport: Transport, audience_id: str) -> None:
        self._transport = transport
        self._audience_id = audience_id

    async def put(self, address: str, body: Mapping[str, Any], *, skip_merge_validation: bool = True) -> dict[str, Any]:
        params = SKIP_MERGE_VALIDATION if skip_merge_validation else {}
        return await self._send("PUT", MEMBER, address, params=params, body=body)

    async def patch(self, address: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._send("PATCH", MEMBER, address, params=SKIP_MERGE_VALIDATION, body=body)

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._send("POST", MEMBERS, params=SKIP_MERGE_VALIDATION, body=body, repeatable=False)

    async def archive(self, address: str) -> None:
        await self._send("DELETE", MEMBER, address)

    async def tag(self, address: str, tags: Mapping[str, bool]) -> None:
        await self._send("POST", MEMBER + "/tags", address, body=tags_body(tags))

    async def _send(self, method: str, route: str, address: str = "", **more: Any) -> dict[str, Any]:
        ids = {"audience": self._audience_id, "member": subscriber_hash(address)}
        return (await self._transport.send(MailchimpCall(method, route, ids, **more))).body


@asynccontextmanager
async def member_calls(key: str, base_url: str, audience_id: str) -> AsyncIterator[MemberCalls]:
    transport = Transport(key, base_url=base_url)
    try:
        yield MemberCalls(transport, audience_id)
    finally:
        await transport.close()


def put_member_operation(
    audience_id: str, member_id: str, body: Mapping[str, Any], operation_id: str
) -> BatchOperation:
    """Create or update one member."""
    return BatchOperation("PUT", f"/lists/{audience_id}/members/{member_id}", operation_id, body, SKIP_MERGE_VALIDATION)


def archive_member_operation(audience_id: str, member_id: str, operation_id: str) -> BatchOperation:
    """Archive one member."""
    return BatchOperation("DELETE", f"/lists/{audience_id}/members/{member_id}", operation_id)


def update_tags_operation(
    audience_id: str, member_id: str, tags: Mapping[str, bool], operation_id: str
) -> BatchOperation:
    """Add (True) and remove (False) tags."""
    return BatchOperation("POST", f"/lists/{audience_id}/members/{member_id}/tags", operation_id, tags_body(tags))
