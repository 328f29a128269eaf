"""Merge fields of an audience and the rules that fill them, for tests of what is sent."""

from copy import deepcopy
from typing import Any

from sqlalchemy import Connection, text

from sync.connections.config import read_config, write_config
from sync.emulator.model.records import MergeField
from tests.support.linked_site import Site


def a_merge_field(site: Site, tag: str, kind: str = "text", **more: Any) -> None:
    """A merge field of the audience at Mailchimp."""
    fields = site.emulator.audience().merge_fields
    number = max(fields, default=0) + 1
    fields[number] = MergeField(number, tag, tag.title(), kind, **more)


async def use_rules(site: Site, **rules: Any) -> None:
    """Fill these merge fields from these sources, as a configuration has them."""

    def change(conn: Connection) -> None:
        raw: Any = deepcopy(dict(read_config(conn).raw))
        raw["lists"][site.list_id]["mergeFields"] = rules
        write_config(conn, raw)

    await site.store.write(change)


def merges(site: Site, address: str) -> dict[str, Any]:
    """The merge fields of a member at Mailchimp, names aside."""
    found = site.emulator.member(address)
    assert found is not None
    return {tag: value for tag, value in found.merges.items() if tag not in ("FNAME", "LNAME")}


async def run_sql(site: Site, *statements: str) -> None:
    """SQL as CiviCRM itself would run it: nothing of ours is told."""

    def run(conn: Connection) -> None:
        for one in statements:
            conn.execute(text(one))

    await site.store.write(run)


async def sent_updates(site: Site) -> int:
    """How many updates there are."""
    return len(await site.updates())
