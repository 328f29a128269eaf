"""The steps of the demo, and the check that both sides agree."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from civiapi.cli.demo.site import BY_POST, GROUP, POST_GROUP, CallFailed, Site, running_site
from civiapi.cli.sync import stage_bars
from civiapi.server.lifecycle import alert_watch
from sync.emulator.rules import campaigns
from sync.model import RECEIVES_MAIL, GroupStatus, MemberStatus, OperationKind, SyncStatus

TIMEOUT_S = 120.0
RULES = {"JOBTITLE": {"source": "contact:job_title"}, "VOLUNTEER": {"source": "tag:1"}}
"""The sources of the audience's merge fields: the job title of the contact, and whether it has the tag Volunteer."""


async def play(folder: Path, *, once: bool, port: int, console: Console) -> bool:
    """Run the demo; returns whether both sides agreed. Unless *once*, keeps them running until cancelled."""
    async with running_site(folder, port=port) as site:
        console.rule("civiapi: a CiviCRM group and a Mailchimp audience in sync")
        list_id = await link_audience(site, console)
        created = await first_sync(site, list_id, console)
        await _summary(site, list_id, created, console)
        await _a_change_on_each_side(site, list_id, console)
        await _an_undo(site, list_id, console)
        await _a_permission(site, list_id, console)
        await _a_campaign(site, list_id, console)
        await _a_failed_sync_alerts(site, console)
        agreed = await sides_agree(site, list_id, console)
        if not once:
            _print_addresses(site, list_id, console)
            await asyncio.Event().wait()
        return agreed


async def link_audience(site: Site, console: Console) -> str:
    """Link the group with the emulator's audience, with webhooks and merge fields; returns the audience's id."""
    group_id = await _group_id(site, GROUP)
    by_post = await site.call("Group", "create", title=POST_GROUP)
    key = site.emulator.key
    account = (await site.call("Mailchimpsync", "fetchaccountinfo", api_key=key))["values"]
    list_id, audience = next(iter(account["audiences"].items()))
    link = {"apiKey": key, "subscriptionGroup": group_id, "interests": {}, "permissions": {BY_POST: by_post["id"]}}
    config = {"accounts": {key: {**account, "apiKey": key}}, "lists": {list_id: link}}
    await site.call("Mailchimpsync", "updateconfig", config=config)
    await site.call("Mailchimpsync", "updatewebhook", process="add_webhook", api_key=key, list_id=list_id)
    await site.call("Mailchimpsync", "updatewebhook", process="add_batch_webhook", api_key=key)
    await site.call("Mailchimpsync", "setmergefields", group_id=group_id, rules=RULES)
    added = await site.call("GroupContact", "getcount", group_id=group_id)
    members = site.emulator.audience(list_id)
    console.print(
        f"Linked group [bold]{GROUP}[/] ({added['result']} people) with audience [bold]{audience['name']}[/] "
        f"({len(members.members)} members)."
    )
    return str(list_id)


async def first_sync(site: Site, list_id: str, console: Console) -> int:
    """Run the first sync with progress bars; returns how many contacts were created."""
    before = await _contacts(site)
    with stage_bars(site.app.sync, console):
        await site.call("Mailchimpsync", "fetchandreconcile", since="ever", with_data=1, max_time=0)
    await _wait_until_idle(site, list_id)
    return await _contacts(site) - before


async def _wait_until_idle(site: Site, list_id: str) -> None:
    """Wait until no update is queued or in flight; the server polls the batches."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            stats = (await _status(site, list_id))["stats"]
            if not stats["mailchimp_updates_pending"] and not stats["todo"]:
                return
            await asyncio.sleep(0.1)


async def _group_id(site: Site, title: str) -> str:
    [group] = (await site.call("Group", "get", title=title, sequential=1))["values"]
    return str(group["id"])


async def _status(site: Site, list_id: str) -> dict[str, Any]:
    answer = await site.call("Mailchimpsync", "getstatus")
    status: dict[str, Any] = answer["values"][list_id]
    return status


async def _summary(site: Site, list_id: str, created: int, console: Console) -> None:
    """Print what the first sync did: who joined, left or was created, and who could not be synced and why."""
    history = await site.call(
        "SubscriptionHistory",
        "get",
        method="MCsync",
        sequential=1,
        options={"limit": 0},
        **{"api.Contact.getvalue": {"id": "$value.contact_id", "return": "display_name"}},
    )
    names: dict[str, list[str]] = {GroupStatus.ADDED: [], GroupStatus.REMOVED: []}
    for row in history["values"]:
        names.setdefault(row["status"], []).append(row["api.Contact.getvalue"])
    updates = await site.call("MailchimpsyncUpdate", "getcount", completed=1)
    described = {one["kind"]: one["count"] for one in (await _latest_run(site))["summary"]}
    stats = (await _status(site, list_id))["stats"]
    joined, left = names[GroupStatus.ADDED], names[GroupStatus.REMOVED]
    console.print(
        f"\n{len(joined)} people joined the group, {created} of them as new contacts: {_listed(joined)}.\n"
        f"{len(left)} left it: {_listed(left)}.\n"
        f"{updates['result']} changes were sent to Mailchimp, including the merge fields JOBTITLE and VOLUNTEER of "
        f"{described.get(OperationKind.FIELDS, 0)} people. "
        f"Now {stats['subscribed_at_mailchimp']} are subscribed there, {stats['subscribed_at_civicrm']} in CiviCRM.",
        highlight=False,
    )
    rows = await site.call(
        "MailchimpsyncCache",
        "get",
        mailchimp_list_id=list_id,
        sync_status=SyncStatus.FAIL,
        troubleshoot=1,
        options={"limit": 0},
    )
    if rows["values"]:
        console.print(f"{len(rows['values'])} could not be synced:")
        for row in rows["values"]:
            console.print(f"  {row['civicrm_display_name']}: {row['errors']}", highlight=False)


async def _latest_run(site: Site) -> dict[str, Any]:
    """The latest run, with what it did by kind."""
    [newest] = (await site.call("Mailchimpsync", "getruns", options={"limit": 1}))["values"]
    run: dict[str, Any] = (await site.call("Mailchimpsync", "getrun", run_id=newest["id"]))["values"]
    return run


async def _contacts(site: Site) -> int:
    return int((await site.call("Contact", "getcount"))["result"])


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nobody"


async def _a_change_on_each_side(site: Site, list_id: str, console: Console) -> None:
    """A member unsubscribes at Mailchimp, and a contact joins the group in CiviCRM; each reaches the other side."""
    leaver = await find_synced_member(site, list_id)
    console.print(f"\nAt Mailchimp, {leaver['mailchimp_email']} clicks “unsubscribe” …")
    site.emulator.person("unsubscribe", leaver["mailchimp_email"], list_id)
    await _wait_until_in_group(site, leaver["civicrm_contact_id"], GroupStatus.REMOVED)
    console.print("  … and the webhook event changes CiviCRM: [bold]Removed[/] from the group.")

    joiner = (
        await site.call(
            "Contact",
            "create",
            contact_type="Individual",
            first_name="Nell",
            last_name="Byrne",
            email="nell.byrne@members.example.org",
        )
    )["id"]
    await site.call("GroupContact", "create", contact_id=joiner, group_id=await _group_id(site, GROUP))
    console.print("In CiviCRM, Nell Byrne is added to the group …")
    await site.call("Mailchimpsync", "fetchandreconcile", max_time=0)
    await _wait_until_idle(site, list_id)
    member = site.emulator.member("nell.byrne@members.example.org", list_id)
    console.print(f"  … and is [bold]{member.status if member else 'missing'}[/] at Mailchimp.")


async def _a_permission(site: Site, list_id: str, console: Console) -> None:
    """A member gives a marketing permission, and joins the group that is linked with it."""
    giver = await find_synced_member(site, list_id)
    console.print(f"\nAt Mailchimp, {giver['mailchimp_email']} ticks “Direct mail” …")
    given = [{"marketing_permission_id": BY_POST, "enabled": True}]
    site.emulator.person("edit_profile", giver["mailchimp_email"], list_id, marketing_permissions=given)
    group_id = await _group_id(site, POST_GROUP)
    await _wait_until_in_group(site, giver["civicrm_contact_id"], GroupStatus.ADDED, group_id=group_id)
    console.print(f"  … and the webhook event changes CiviCRM: [bold]Added[/] to “{POST_GROUP}”.")


async def _an_undo(site: Site, list_id: str, console: Console) -> None:
    """A contact is removed from the group by mistake, and a sync unsubscribes it; then that run is undone."""
    person = await find_synced_member(site, list_id)
    contact_id, address = person["civicrm_contact_id"], person["mailchimp_email"]
    membership = {"contact_id": contact_id, "group_id": await _group_id(site, GROUP)}

    async def at_mailchimp() -> str:
        await _wait_until_idle(site, list_id)
        member = site.emulator.member(address, list_id)
        return f"[bold]{member.status if member else 'missing'}[/] at Mailchimp"

    console.print(f"\nIn CiviCRM, {address} is removed from the group by mistake …")
    await site.call("GroupContact", "create", **membership, status=GroupStatus.REMOVED)
    await site.call("Mailchimpsync", "fetchandreconcile", max_time=0)
    console.print(f"  … the next sync makes the same change on the other side: {await at_mailchimp()}.")
    await site.call("Mailchimpsync", "undorun", run_id=(await _latest_run(site))["id"])
    console.print(f"  … that run is undone: {await at_mailchimp()}, and no later sync changes that.")
    await site.call("GroupContact", "create", **membership, status=GroupStatus.ADDED)


async def _a_failed_sync_alerts(site: Site, console: Console) -> None:
    """The API key is revoked: an alert is e-mailed. It is valid again: another e-mail says that the problem is over."""
    user = site.emulator.world.default_account.users[0]
    keys, user.keys = user.keys, []
    console.print("\nAt Mailchimp, somebody revokes the API key, so that the next sync fails …")
    with suppress(CallFailed):
        await site.call("Mailchimpsync", "fetchandreconcile", max_time=0)
    await _check_alerts(site, console)
    user.keys = keys
    console.print("The key is valid again, and the next sync succeeds …")
    await site.call("Mailchimpsync", "fetchandreconcile", max_time=0)
    await _check_alerts(site, console)


async def _check_alerts(site: Site, console: Console) -> None:
    """Check for alerts, as the scheduler does every minute, and print the e-mails that arrive."""
    before = len(site.mail.mails)
    await alert_watch(site.app).check()
    for mail in site.mail.mails[before:]:
        console.print(f"  … and [bold]{mail['To']}[/] gets a mail: {escape(str(mail['Subject']))}", highlight=False)


async def find_synced_member(site: Site, list_id: str) -> dict[str, Any]:
    """The cache row of a subscribed member whose contact is in the group."""
    rows = await site.call(
        "MailchimpsyncCache",
        "get",
        mailchimp_list_id=list_id,
        sync_status=SyncStatus.OK,
        mailchimp_status=MemberStatus.SUBSCRIBED,
        civicrm_status=GroupStatus.ADDED,
        options={"limit": 1},
    )
    row: dict[str, Any] = rows["values"][0]
    return row


async def _wait_until_in_group(site: Site, contact_id: str, status: GroupStatus, **group: str) -> None:
    """Wait until the latest group change of a contact has this status; *group*: only changes of that ``group_id``."""
    asked = {"contact_id": contact_id, **group, "sequential": 1, "options": {"limit": 1, "sort": "id DESC"}}
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            rows = (await site.call("SubscriptionHistory", "get", **asked))["values"]
            if rows and rows[0]["status"] == status:
                return
            await asyncio.sleep(0.1)


async def _a_campaign(site: Site, list_id: str, console: Console) -> None:
    """Mailchimp sends a campaign, three people open it, one clicks a link; it is imported as an activity."""
    world, link = site.emulator.world, "https://example.org/donate"
    sent = campaigns.send(world, "Thank you for a good year", list_id, links=[link])
    readers = [one.email for one in sent.recipients.values()][:3]
    for address in readers:
        campaigns.open_mail(world, sent.id, address)
    for address in readers[:1]:
        campaigns.click(world, sent.id, address, link)
    console.print("\nMailchimp sends a campaign …")
    await site.call("Mailchimpsync", "importcampaigns", with_figures=1)
    [imported] = (await site.call("Mailchimpsync", "getcampaigns"))["values"]
    console.print(
        f"  … and it is imported as activity “{imported['subject']}” with {imported['targets']} people, of whom "
        f"{imported['opened_by']} opened it.",
        highlight=False,
    )


async def sides_agree(site: Site, list_id: str, console: Console) -> bool:
    """Compare the members of the emulator with the group, people marked as failed excepted."""
    rows = (await site.call("MailchimpsyncCache", "get", mailchimp_list_id=list_id, options={"limit": 0}))["values"]
    failed = {row["civicrm_contact_id"] for row in rows if row["sync_status"] == SyncStatus.FAIL}
    contact_of = {row["mailchimp_email"].lower(): row["civicrm_contact_id"] for row in rows if row["mailchimp_email"]}
    at_mailchimp = {
        contact_of.get(member.email.lower(), member.email)
        for member in site.emulator.audience(list_id).members
        if member.status in RECEIVES_MAIL
    }
    group_id = await _group_id(site, GROUP)
    found = await site.call("GroupContact", "get", group_id=group_id, sequential=1, options={"limit": 0})
    in_group = {row["contact_id"] for row in found["values"]}
    differing = (at_mailchimp ^ in_group) - failed
    if differing:
        console.print(f"\n[bold red]The two sides differ[/] for {len(differing)}: {', '.join(sorted(differing))}")
    else:
        console.print(f"\n[bold green]Both sides agree[/]: {len(at_mailchimp & in_group)} people.")
    return not differing


def _print_addresses(site: Site, list_id: str, console: Console) -> None:
    server = site.settings.server
    secret = f"key={server.site_key}&api_key={site.settings.users[0].api_key}"
    rest = f"{server.base_url}/sites/all/modules/civicrm/extern/rest.php"
    console.print(
        f"\nThe server and the emulator of Mailchimp ({site.emulator.base_url}) are running (process {os.getpid()}).\n"
        "Three calls to try:\n"
        f"  curl '{rest}?{secret}&json=1&entity=Mailchimpsync&action=getstatus&prettyprint=1'\n"
        f"  curl '{rest}?{secret}&entity=MailchimpsyncCache&action=get'"
        f' --data-urlencode \'json={{"mailchimp_list_id":"{list_id}","sync_status":"fail","troubleshoot":1}}\'\n'
        f"  curl '{rest}?{secret}&json=1&entity=Contact&action=getcount'\n\n"
        f"Open {server.base_url}/ and log in as {site.settings.users[0].name} with the API key "
        f"{site.settings.users[0].api_key} (Ctrl-C stops the demo).",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
