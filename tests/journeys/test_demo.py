"""The demo, once, as `make demo` plays it: both sides agree, and every step is printed."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from civiapi.cli.demo import site as demo_site
from civiapi.cli.demo import story
from civiapi.cli.demo.site import running_site


async def test_the_demo_brings_both_ends_into_step_and_says_how(tmp_path: Path) -> None:
    told = StringIO()
    agreed = await story.play(tmp_path, once=True, port=0, console=Console(file=told, width=200))
    text = told.getvalue()
    assert agreed, text
    for words in (
        "Linked group Newsletter",
        "Fetch members",
        "Send updates",
        "people joined the group",
        "left it: ",
        "changes were sent to Mailchimp",
        '"Cleaned" contacts cannot be resubscribed.',
        "the webhook event changes CiviCRM: Removed from the group",
        "and is subscribed at Mailchimp",
        "including the merge fields JOBTITLE and VOLUNTEER of 20 people",
        "is removed from the group by mistake",
        "the next sync makes the same change on the other side: unsubscribed at Mailchimp",
        "that run is undone: subscribed at Mailchimp",
        "the webhook event changes CiviCRM: Added to “May be written to by post”",
        "officer@charity.example.org gets a mail: Warning: Audience a1b2c3d4e5 stopped at readyToFetch",
        "officer@charity.example.org gets a mail: Mended: Audience a1b2c3d4e5 stopped at readyToFetch",
        "Both sides agree",
    ):
        assert words in text


async def test_the_demo_says_so_when_the_ends_differ(tmp_path: Path) -> None:
    told = StringIO()
    console = Console(file=told, width=200)
    async with running_site(tmp_path) as site:
        list_id = await story.link_audience(site, console)
        await story.first_sync(site, list_id, console)
        leaver = await story.find_synced_member(site, list_id)
        await site.call("GroupContact", "create", contact_id=leaver["civicrm_contact_id"], group_id=1, status="Removed")
        assert not await story.sides_agree(site, list_id, console)
    assert "The two sides differ for 1" in told.getvalue()


async def test_the_demo_shows_an_error_of_a_call_in_civicrm_s_words(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        with pytest.raises(demo_site.CallFailed, match=r"Nonsense\.get: API \(Nonsense, get\) does not exist"):
            await site.call("Nonsense", "get")
