"""Campaigns outside the API: an admin sends one in the web app, and people open it and click its links."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sync.emulator.model.records import SUBSCRIBED, Campaign, EmulatedAccount, Recipient
from sync.emulator.model.state import EmulatorState

FIRST_WEB_ID = 700_001


class UnknownCampaign(ValueError):
    """There is no such campaign, recipient or link."""


def send(
    state: EmulatorState,
    subject: str,
    list_id: str | None = None,
    *,
    title: str = "",
    links: Sequence[str] = (),
    sent_at: int | None = None,
    status: str = "sent",
    only: Collection[str] | None = None,
) -> Campaign:
    """Send a campaign to all subscribed members of an audience, or to *only* these addresses of them.

    *sent_at* is in whole seconds since 1970, now by default; a *status* other than ``sent`` has no recipients.
    """
    account, audience = state.find_audience(list_id)
    at = state.clock.seconds() if sent_at is None else sent_at
    web_id = FIRST_WEB_ID + len(account.campaigns)
    campaign = Campaign(state.new_id(), web_id, audience.id, subject, title or subject, status=status)
    campaign.created_at = at
    campaign.archive_url = f"http://eepurl.example.org/{campaign.id}"
    campaign.links = {state.new_id(): url for url in links}
    if status == "sent":
        campaign.sent_at = at
        wanted = None if only is None else {address.lower() for address in only}
        for member in audience.members:
            if member.status == SUBSCRIBED and (wanted is None or member.email.lower() in wanted):
                campaign.recipients[member.id] = Recipient(member.id, member.email)
    account.campaigns[campaign.id] = campaign
    return campaign


def open_mail(state: EmulatorState, campaign_id: str, email: str, at: int | None = None) -> None:
    """A recipient opens the mail. Raises UnknownCampaign."""
    recipient = _recipient(_campaign(state, campaign_id), email)
    recipient.opens.append(state.clock.seconds() if at is None else at)


def click(state: EmulatorState, campaign_id: str, email: str, url: str) -> None:
    """A recipient clicks a link. Raises UnknownCampaign."""
    campaign = _campaign(state, campaign_id)
    link = next((key for key, known in campaign.links.items() if known == url), None)
    if link is None:
        raise UnknownCampaign(f"Campaign {campaign_id} has no link {url}")
    recipient = _recipient(campaign, email)
    recipient.clicks[link] = recipient.clicks.get(link, 0) + 1


def account_of(state: EmulatorState, campaign_id: str) -> EmulatedAccount:
    """The account of a campaign. Raises UnknownCampaign."""
    for account in state.accounts.values():
        if campaign_id in account.campaigns:
            return account
    raise UnknownCampaign(f"There is no campaign {campaign_id}")


def _campaign(state: EmulatorState, campaign_id: str) -> Campaign:
    return account_of(state, campaign_id).campaigns[campaign_id]


def _recipient(campaign: Campaign, email: str) -> Recipient:
    for recipient in campaign.recipients.values():
        if recipient.email.lower() == email.lower():
            return recipient
    raise UnknownCampaign(f"Campaign {campaign.id} was not sent to {email}")
