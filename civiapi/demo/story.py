"""What the demo shows, step by step, and how it checks that both ends agree."""

import asyncio
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from civiapi.demo.site import GROUP, Site, running_site
from civiapi.progress import stage_bars

RECEIVES = ("subscribed", "pending")
PATIENCE_S = 120.0  # a demo that is not in step by then has failed


async def play(folder: Path, *, once: bool, port: int, console: Console) -> bool:
    """Run the demo; whether both ends agreed. Unless *once*, leaves both running until cancelled."""
    async with running_site(folder, port=port) as site:
        console.rule("civiapi: a CiviCRM group and a Mailchimp audience, brought into step")
        list_id = await _link(site, console)
        created = await _first_sync(site, list_id, console)
        await _summary(site, list_id, created, console)
        await _a_change_at_each_end(site, list_id, console)
        agreed = await _agree(site, list_id, console)
        if not once:
            _where_to_look(site, list_id, console)
            await asyncio.Event().wait()
        return agreed


async def _link(site: Site, console: Console) -> str:
    groups = await site.call("Group", "get", title=GROUP, sequential=1)
    group_id = groups["values"][0]["id"]
    key = site.emulator.key
    account = (await site.call("Mailchimpsync", "fetchaccountinfo", api_key=key))["values"]
    list_id, audience = next(iter(account["audiences"].items()))
    config = {
        "accounts": {key: {**account, "apiKey": key}},
        "lists": {list_id: {"apiKey": key, "subscriptionGroup": group_id, "interests": {}}},
    }
    await site.call("Mailchimpsync", "updateconfig", config=config)
    await site.call("Mailchimpsync", "updatewebhook", process="add_webhook", api_key=key, list_id=list_id)
    await site.call("Mailchimpsync", "updatewebhook", process="add_batch_webhook", api_key=key)
    added = await site.call("GroupContact", "getcount", group_id=group_id)
    members = site.emulator.audience(list_id)
    console.print(
        f"Linked group [bold]{GROUP}[/] ({added['result']} people) with audience [bold]{audience['name']}[/] "
        f"({len(members.members)} members)."
    )
    return str(list_id)


async def _first_sync(site: Site, list_id: str, console: Console) -> int:
    """Everyone, stage by stage; how many contacts were created."""
    before = await _contacts(site)
    with stage_bars(site.app.sync, console):
        await site.call("Mailchimpsync", "fetchandreconcile", since="ever", max_time=0)
    await _in_step(site, list_id)
    return await _contacts(site) - before


async def _in_step(site: Site, list_id: str) -> None:
    """Wait until nothing is owed to Mailchimp; batches are watched by the server itself."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            stats = (await _status(site, list_id))["stats"]
            if not stats["mailchimp_updates_pending"] and not stats["todo"]:
                return
            await asyncio.sleep(0.1)


async def _status(site: Site, list_id: str) -> dict[str, Any]:
    answer = await site.call("Mailchimpsync", "getstatus")
    status: dict[str, Any] = answer["values"][list_id]
    return status


async def _summary(site: Site, list_id: str, created: int, console: Console) -> None:
    """What the first sync did, in words: who joined, left, was created, and who could not be synced and why."""
    history = await site.call(
        "SubscriptionHistory",
        "get",
        method="MCsync",
        sequential=1,
        options={"limit": 0},
        **{"api.Contact.getvalue": {"id": "$value.contact_id", "return": "display_name"}},
    )
    names: dict[str, list[str]] = {"Added": [], "Removed": []}
    for row in history["values"]:
        names.setdefault(row["status"], []).append(row["api.Contact.getvalue"])
    updates = await site.call("MailchimpsyncUpdate", "getcount", completed=1)
    stats = (await _status(site, list_id))["stats"]
    joined, left = names["Added"], names["Removed"]
    console.print(
        f"\n{len(joined)} people joined the group, {created} of them as new contacts: {_listed(joined)}.\n"
        f"{len(left)} left it: {_listed(left)}.\n"
        f"{updates['result']} changes went to Mailchimp. "
        f"Now {stats['subscribed_at_mailchimp']} are subscribed there, {stats['subscribed_at_civicrm']} in CiviCRM.",
        highlight=False,
    )
    rows = await site.call(
        "MailchimpsyncCache",
        "get",
        mailchimp_list_id=list_id,
        sync_status="fail",
        troubleshoot=1,
        options={"limit": 0},
    )
    if rows["values"]:
        console.print(f"{len(rows['values'])} could not be synced:")
        for row in rows["values"]:
            console.print(f"  {row['civicrm_display_name']}: {row['errors']}", highlight=False)


async def _contacts(site: Site) -> int:
    return int((await site.call("Contact", "getcount"))["result"])


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nobody"


async def _a_change_at_each_end(site: Site, list_id: str, console: Console) -> None:
    leaver = await _someone_in_step(site, list_id)
    console.print(f"\nAt Mailchimp, {leaver['mailchimp_email']} clicks “unsubscribe” …")
    site.emulator.person("unsubscribe", leaver["mailchimp_email"], list_id)
    async with asyncio.timeout(PATIENCE_S):
        while await _standing(site, leaver["civicrm_contact_id"]) != "Removed":  # noqa: ASYNC110  another end tells
            await asyncio.sleep(0.1)
    console.print("  … the webhook told CiviCRM: [bold]Removed[/] from the group.")

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
    groups = await site.call("Group", "get", title=GROUP, sequential=1)
    await site.call("GroupContact", "create", contact_id=joiner, group_id=groups["values"][0]["id"])
    console.print("In CiviCRM, Nell Byrne is added to the group …")
    await site.call("Mailchimpsync", "fetchandreconcile", max_time=0)
    await _in_step(site, list_id)
    member = site.emulator.member("nell.byrne@members.example.org", list_id)
    console.print(f"  … and is [bold]{member.status if member else 'missing'}[/] at Mailchimp.")


async def _someone_in_step(site: Site, list_id: str) -> dict[str, Any]:
    rows = await site.call(
        "MailchimpsyncCache",
        "get",
        mailchimp_list_id=list_id,
        sync_status="ok",
        mailchimp_status="subscribed",
        civicrm_status="Added",
        options={"limit": 1},
    )
    row: dict[str, Any] = rows["values"][0]
    return row


async def _standing(site: Site, contact_id: str) -> str:
    rows = await site.call(
        "SubscriptionHistory", "get", contact_id=contact_id, sequential=1, options={"limit": 1, "sort": "id DESC"}
    )
    return str(rows["values"][0]["status"])


async def _agree(site: Site, list_id: str, console: Console) -> bool:
    """Hold the audience, as the emulator has it, against the group; people marked as failed apart."""
    rows = (await site.call("MailchimpsyncCache", "get", mailchimp_list_id=list_id, options={"limit": 0}))["values"]
    excused = {row["civicrm_contact_id"] for row in rows if row["sync_status"] == "fail"}
    contact_of = {row["mailchimp_email"].lower(): row["civicrm_contact_id"] for row in rows if row["mailchimp_email"]}
    at_mailchimp = {
        contact_of.get(member.email.lower(), member.email)
        for member in site.emulator.audience(list_id).members
        if member.status in RECEIVES
    }
    groups = await site.call("Group", "get", title=GROUP, sequential=1)
    found = await site.call(
        "GroupContact", "get", group_id=groups["values"][0]["id"], sequential=1, options={"limit": 0}
    )
    in_group = {row["contact_id"] for row in found["values"]}
    differing = (at_mailchimp ^ in_group) - excused
    if differing:
        console.print(f"\n[bold red]The two ends differ[/] for {len(differing)}: {', '.join(sorted(differing))}")
    else:
        console.print(f"\n[bold green]Both ends agree[/]: {len(at_mailchimp & in_group)} people.")
    return not differing


def _where_to_look(site: Site, list_id: str, console: Console) -> None:
    server = site.settings.server
    secret = f"key={server.site_key}&api_key={site.settings.users[0].api_key}"
    rest = f"{server.base_url}/sites/all/modules/civicrm/extern/rest.php"
    console.print(
        f"\nBoth are running (process {os.getpid()}); Ctrl-C stops them. "
        f"The API: {server.base_url}/civicrm/ajax/rest   Mailchimp: {site.emulator.base_url}\n"
        f"The pages: {server.base_url}/ (user {site.settings.users[0].name}, key {site.settings.users[0].api_key})\n"
        "Three commands to try next:\n"
        f"  curl '{rest}?{secret}&json=1&entity=Mailchimpsync&action=getstatus&prettyprint=1'\n"
        f"  curl '{rest}?{secret}&entity=MailchimpsyncCache&action=get'"
        f' --data-urlencode \'json={{"mailchimp_list_id":"{list_id}","sync_status":"fail","troubleshoot":1}}\'\n'
        f"  curl '{rest}?{secret}&json=1&entity=Contact&action=getcount'\n",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
