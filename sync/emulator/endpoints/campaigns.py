"""Campaigns and their reports: recipients, opens, and clicks for each link. Read only.

Source: Mailchimp Marketing API, campaigns and reports. Members who were deleted permanently are in no report.
"""

from __future__ import annotations

from collections.abc import Mapping

from sync.emulator.model.clock import from_text, to_wire
from sync.emulator.model.records import Campaign, Json, Recipient
from sync.emulator.protocol.exchange import ApiCall, Response, links
from sync.emulator.protocol.paging import collection, one
from sync.emulator.protocol.problems import field_error, not_found, schema_failed

STATUSES = ("save", "paused", "schedule", "sending", "sent")
SORT_FIELDS = ("create_time", "send_time")
TIMES = {
    "since_send_time": ("sent_at", 1),
    "before_send_time": ("sent_at", -1),
    "since_create_time": ("created_at", 1),
    "before_create_time": ("created_at", -1),
}


def list_campaigns(call: ApiCall) -> Response:
    """GET /campaigns, filtered by audience, status, type and times, in the order asked for."""
    _one_of(call, "status", STATUSES)
    _one_of(call, "sort_field", SORT_FIELDS)
    query = call.query
    times = {name: _instant(call, name) for name in TIMES if query.get(name)}
    found = [campaign for campaign in call.account.campaigns.values() if _is_wanted(call, campaign, times)]
    if query.get("sort_field"):
        name = "sent_at" if query["sort_field"] == "send_time" else "created_at"
        found.sort(key=lambda campaign: getattr(campaign, name), reverse=query.get("sort_dir") == "DESC")
    return collection(call, "campaigns", found, lambda campaign: _show(call, campaign))


def read(call: ApiCall) -> Response:
    """GET /campaigns/{id}."""
    return one(call, _show(call, _campaign_of(call)))


def list_recipients(call: ApiCall) -> Response:
    """GET /reports/{id}/sent-to: who the campaign was sent to."""
    campaign = _campaign_of(call)
    return collection(
        call,
        "sent_to",
        _recipients(call, campaign),
        lambda recipient: {
            **_about(call, campaign, recipient),
            "status": recipient.status,
            "open_count": len(recipient.opens),
            "last_open": to_wire(max(recipient.opens, default=0)),
            "absplit_group": "",
            "gmt_offset": 0,
        },
        campaign_id=campaign.id,
    )


def list_opens(call: ApiCall) -> Response:
    """GET /reports/{id}/open-details: who opened the campaign, and when."""
    campaign = _campaign_of(call)
    since = _instant(call, "since")
    found = [one for one in _recipients(call, campaign) if any(at >= since for at in one.opens)]
    return collection(
        call,
        "members",
        found,
        lambda recipient: {
            **_about(call, campaign, recipient),
            "contact_status": _contact_status(call, campaign, recipient),
            "opens_count": len(recipient.opens),
            "proxy_excluded_opens_count": len(recipient.opens),
            "opens": [{"timestamp": to_wire(at), "is_proxy_open": False} for at in recipient.opens],
        },
        campaign_id=campaign.id,
        total_opens=sum(len(recipient.opens) for recipient in found),
        total_proxy_excluded_opens=sum(len(recipient.opens) for recipient in found),
    )


def list_links(call: ApiCall) -> Response:
    """GET /reports/{id}/click-details: the links of the campaign, and how often each was clicked."""
    campaign = _campaign_of(call)
    counts = {
        link: [recipient.clicks[link] for recipient in campaign.recipients.values() if link in recipient.clicks]
        for link in campaign.links
    }
    total, unique = sum(map(sum, counts.values())), sum(map(len, counts.values()))
    return collection(
        call,
        "urls_clicked",
        list(campaign.links.items()),
        lambda link: {
            "id": link[0],
            "url": link[1],
            "total_clicks": sum(counts[link[0]]),
            "click_percentage": sum(counts[link[0]]) / total if total else 0,
            "unique_clicks": len(counts[link[0]]),
            "unique_click_percentage": len(counts[link[0]]) / unique if unique else 0,
            "last_click": "",
            "campaign_id": campaign.id,
            "_links": links(f"{_report(call, campaign)}/click-details/{link[0]}", "members"),
        },
        campaign_id=campaign.id,
    )


def list_clicks(call: ApiCall) -> Response:
    """GET /reports/{id}/click-details/{link}/members: who clicked a link, and how often."""
    campaign, link = _campaign_of(call), call.ids[1]
    if link not in campaign.links:
        raise not_found()
    return collection(
        call,
        "members",
        [recipient for recipient in _recipients(call, campaign) if link in recipient.clicks],
        lambda recipient: {
            **_about(call, campaign, recipient),
            "clicks": recipient.clicks[link],
            "url_id": link,
            "contact_status": _contact_status(call, campaign, recipient),
        },
        campaign_id=campaign.id,
    )


def _is_wanted(call: ApiCall, campaign: Campaign, times: Mapping[str, int]) -> bool:
    query = call.query
    same = {"list_id": campaign.list_id, "status": campaign.status, "type": campaign.type}
    if not all(query.get(name) in (None, "", value) for name, value in same.items()):
        return False
    return all(TIMES[name][1] * (getattr(campaign, TIMES[name][0]) - at) >= 0 for name, at in times.items())


def _show(call: ApiCall, campaign: Campaign) -> Json:
    audience = call.account.audiences.get(campaign.list_id)
    opens = [len(recipient.opens) for recipient in campaign.recipients.values() if recipient.opens]
    clicks = [sum(recipient.clicks.values()) for recipient in campaign.recipients.values() if recipient.clicks]
    sent = len(campaign.recipients)
    return {
        "id": campaign.id,
        "web_id": campaign.web_id,
        "type": campaign.type,
        "create_time": to_wire(campaign.created_at),
        "archive_url": campaign.archive_url,
        "long_archive_url": campaign.archive_url,
        "status": campaign.status,
        "emails_sent": sent,
        "send_time": to_wire(campaign.sent_at),
        "content_type": "template",
        "needs_block_refresh": False,
        "resendable": False,
        "recipients": {
            "list_id": campaign.list_id,
            "list_is_active": audience is not None,
            "list_name": audience.name if audience else "",
            "segment_text": "",
            "recipient_count": sent,
        },
        "settings": {
            "subject_line": campaign.subject,
            "title": campaign.title,
            "from_name": campaign.from_name,
            "reply_to": call.account.email,
        },
        "report_summary": {
            "opens": sum(opens),
            "unique_opens": len(opens),
            "open_rate": len(opens) / sent if sent else 0,
            "clicks": sum(clicks),
            "subscriber_clicks": len(clicks),
            "click_rate": len(clicks) / sent if sent else 0,
        },
        "_links": links(f"{call.state.api_root}/campaigns/{campaign.id}"),
    }


def _campaign_of(call: ApiCall) -> Campaign:
    found = call.account.campaigns.get(call.ids[0])
    if found is None:
        raise not_found()
    return found


def _recipients(call: ApiCall, campaign: Campaign) -> list[Recipient]:
    audience = call.account.audiences.get(campaign.list_id)
    forgotten = audience.members.forgotten if audience else set()
    return [recipient for recipient in campaign.recipients.values() if recipient.email_id not in forgotten]


def _about(call: ApiCall, campaign: Campaign, recipient: Recipient) -> Json:
    audience = call.account.audiences.get(campaign.list_id)
    member = audience.members.find(recipient.email_id) if audience else None
    return {
        "email_id": recipient.email_id,
        "email_address": recipient.email,
        "merge_fields": dict(member.merges) if member else {},
        "vip": member.vip if member else False,
        "campaign_id": campaign.id,
        "list_id": campaign.list_id,
        "list_is_active": audience is not None,
        "_links": links(f"{_report(call, campaign)}/sent-to/{recipient.email_id}"),
    }


def _contact_status(call: ApiCall, campaign: Campaign, recipient: Recipient) -> str:
    audience = call.account.audiences.get(campaign.list_id)
    member = audience.members.find(recipient.email_id) if audience else None
    return member.status if member else ""


def _report(call: ApiCall, campaign: Campaign) -> str:
    return f"{call.state.api_root}/reports/{campaign.id}"


def _one_of(call: ApiCall, name: str, known: tuple[str, ...]) -> None:
    if call.query.get(name) not in (None, "", *known):
        raise schema_failed([field_error(name, "The value you selected is not a valid choice.")])


def _instant(call: ApiCall, name: str) -> int:
    try:
        return from_text(call.query.get(name, ""), ignore_offset=True)
    except ValueError:
        raise schema_failed([field_error(name, "This value should be a valid datetime.")]) from None
