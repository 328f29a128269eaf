"""Campaigns that were sent, and their reports: who they were sent to, who opened them, who clicked which link.

Source: Mailchimp Marketing API, campaigns and reports. Every method may raise the errors of ``errors``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sync.mailchimp.transport import PAGE_SIZE, MailchimpCall, Transport
from sync.mailchimp.wire import as_count, find_count, find_instant, format_instant, is_last_page

MAX_ID = 32
CAMPAIGN_FIELDS = (
    "id",
    "send_time",
    "archive_url",
    "long_archive_url",
    "emails_sent",
    "recipients.list_id",
    "settings.subject_line",
    "settings.title",
    "variate_settings.subject_lines",
)


@dataclass(frozen=True, slots=True)
class SentCampaign:
    """A campaign that was sent. `sent_at` is when sending began (aware UTC); `archive_url` is empty where unusable."""

    id: str
    list_id: str
    sent_at: datetime
    subject: str = ""
    title: str = ""
    archive_url: str = ""
    emails_sent: int = 0

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> SentCampaign | None:
        """Read a campaign from its JSON; None for one without an id or a time of sending."""
        sent_at, campaign_id = find_instant(body.get("send_time")), body.get("id")
        if sent_at is None or not isinstance(campaign_id, str) or not is_report_id(campaign_id):
            return None
        settings, variants = _map(body.get("settings")), _map(body.get("variate_settings")).get("subject_lines")
        subjects = [
            settings.get("subject_line"),
            *(variants if isinstance(variants, list) else []),
            settings.get("title"),
        ]
        urls = [body.get("long_archive_url"), body.get("archive_url")]
        return cls(
            campaign_id,
            str(_map(body.get("recipients")).get("list_id") or ""),
            sent_at,
            subject=next((one for one in subjects if isinstance(one, str) and one.strip()), ""),
            title=str(settings.get("title") or ""),
            archive_url=next((one for one in urls if isinstance(one, str) and is_web_url(one)), ""),
            emails_sent=as_count(body.get("emails_sent")),
        )


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A page of a report: its rows as they came, the offset of the next page (None: it was the last), and the total."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    following: int | None = None
    total_items: int = 0


class CampaignReports:
    """The calls about campaigns of one account."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def iter_sent(self, audience_id: str, since: datetime | None = None) -> AsyncGenerator[SentCampaign, None]:
        """Yield the campaigns that were sent to an audience, oldest first; only those sent after *since* (aware)."""
        params = {
            "status": "sent",
            "list_id": audience_id,
            "sort_field": "send_time",
            "sort_dir": "ASC",
            "fields": ",".join([*(f"campaigns.{name}" for name in CAMPAIGN_FIELDS), "total_items"]),
        }
        if since is not None:
            params["since_send_time"] = format_instant(since)
        async with aclosing(
            self._transport.collect(MailchimpCall("GET", "/campaigns", params=params), "campaigns")
        ) as rows:
            async for row in rows:
                campaign = SentCampaign.from_wire(row)
                if campaign is not None and campaign.list_id == audience_id:
                    yield campaign

    async def get_recipients(self, campaign_id: str, offset: int = 0) -> ReportPage:
        """A page of those whom a campaign was sent to: ``email_id`` and ``email_address``."""
        return await self._page("sent-to", {"campaign": campaign_id}, "sent_to", ("email_id", "email_address"), offset)

    async def get_opens(self, campaign_id: str, offset: int = 0) -> ReportPage:
        """A page of those who opened a campaign: also ``opens_count`` and ``opens``, each with a ``timestamp``."""
        names = ("email_id", "email_address", "opens_count", "opens")
        return await self._page("open-details", {"campaign": campaign_id}, "members", names, offset)

    async def get_links(self, campaign_id: str) -> list[str]:
        """The ids of the links of a campaign that somebody clicked; those that are no ids are left out."""
        call = MailchimpCall("GET", "/reports/{campaign}/click-details", {"campaign": campaign_id})
        rows = self._transport.collect(call, "urls_clicked")
        clicked = [row.get("id") async for row in rows if as_count(row.get("total_clicks"))]
        return [one for one in clicked if isinstance(one, str) and is_report_id(one)]

    async def get_clicks(self, campaign_id: str, link_id: str, offset: int = 0) -> ReportPage:
        """A page of those who clicked a link: also ``clicks``, how often."""
        names = ("email_id", "email_address", "clicks")
        ids = {"campaign": campaign_id, "link": link_id}
        return await self._page("click-details/{link}/members", ids, "members", names, offset)

    async def _page(
        self, report: str, ids: Mapping[str, str], key: str, names: tuple[str, ...], offset: int
    ) -> ReportPage:
        fields = ",".join([*(f"{key}.{name}" for name in names), "total_items"])
        params = {"count": str(PAGE_SIZE), "offset": str(offset), "fields": fields}
        route = f"/reports/{{campaign}}/{report}"
        call = MailchimpCall("GET", route, ids, params, must_list=key, may_end_early=True)  # people were deleted since
        body = (await self._transport.send(call)).body
        found, total = body[key], find_count(body.get("total_items"))
        following = offset + len(found)
        is_last = is_last_page(len(found), PAGE_SIZE, following, total)
        return ReportPage([row for row in found if isinstance(row, dict)], None if is_last else following, total or 0)


def is_report_id(text: str) -> bool:
    """Whether this may be Mailchimp's id of a campaign or of a link."""
    return text.isascii() and text.isalnum() and len(text) <= MAX_ID


def is_web_url(text: str) -> bool:
    """Whether this is the address of a web page, and not of a script."""
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
