"""Runs of a site whose clock and whose Mailchimp stand still at noon; Mailchimp works off batches when told."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.linked_site import Site

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)
BEFORE, LATER = NOON - timedelta(days=1), NOON + timedelta(days=1)


async def sync_by_hand(site: Site, **request: Any) -> None:
    """A run, Mailchimp working off what it was sent, and the results of that."""
    await site.run(**request)
    await site.settle_with_batches()
    site.emulator.configure(auto_batches=False)


async def stop_before(site: Site, stage: str, **request: Any) -> None:
    """A run up to a stage."""
    outcome = await site.run(since=request.pop("since", "ever"), stop_on=stage, **request)
    assert outcome.outcome == "stopped"
    assert (await site.status())["locks"]["fetchAndReconcile"] == stage


def tags_at_mailchimp(site: Site, address: str = "ada@example.org") -> set[str]:
    audience, found = site.emulator.audience(), site.emulator.member(address)
    names = {one.id: one.name for one in audience.tags.values()}
    return {names[one] for one in (found.tags if found else None) or ()}
