"""Small changes that people make: in CiviCRM, and to what an audience offers."""

from sqlalchemy import Connection, delete, select
from sqlalchemy import update as change

from civiapi.store.schema.tables import contact, email, entity_tag, tag
from sync.emulator.model.records import Interest, InterestCategory
from tests.support.linked_site import TREES_GROUP, Site, link

TREES = "9143cf3bd1"
"""The id of an interest."""


async def with_trees(site: Site) -> str:
    """Let the audience offer an interest that is linked with the Trees group; returns its id."""
    offer_trees(site)
    await site.store.write(link, site.emulator.key, site.list_id, {TREES: str(TREES_GROUP)})
    return TREES


def offer_trees(site: Site) -> None:
    """Let the audience offer an interest."""
    category = InterestCategory("c" * 10, "Topics")
    category.interests[TREES] = Interest(TREES, category.id, "Trees")
    site.emulator.audience().categories[category.id] = category


async def touch(site: Site, contact_id: int) -> None:
    """What CiviCRM does to a contact whose address or record changed."""
    at = site.store.clock.now()
    await site.store.write(
        lambda conn: conn.execute(change(contact).where(contact.c.id == contact_id).values(modified_date=at)).rowcount
    )


async def trash(site: Site, contact_id: int, is_deleted: int = 1) -> None:
    await site.store.write(
        lambda conn: (
            conn.execute(change(contact).where(contact.c.id == contact_id).values(is_deleted=is_deleted)).rowcount
        )
    )
    await touch(site, contact_id)


async def replace_address(site: Site, contact_id: int, address: str) -> None:
    await site.store.write(
        lambda conn: conn.execute(change(email).where(email.c.contact_id == contact_id).values(email=address)).rowcount
    )
    await touch(site, contact_id)


async def add_address(site: Site, contact_id: int, address: str) -> None:
    await site.store.write(
        lambda conn: conn.execute(email.insert().values(contact_id=contact_id, email=address)).rowcount
    )
    await touch(site, contact_id)


async def drop_address(site: Site, contact_id: int, address: str) -> None:
    mine = (email.c.contact_id == contact_id) & (email.c.email == address)
    await site.store.write(lambda conn: conn.execute(delete(email).where(mine)).rowcount)
    await touch(site, contact_id)


async def give_tag(site: Site, contact_id: int, name: str) -> None:
    def give(conn: Connection) -> None:
        found = conn.execute(select(tag.c.id).where(tag.c.name == name)).scalar()
        tag_id = found or conn.execute(tag.insert().values(name=name, label=name)).lastrowid
        conn.execute(entity_tag.insert().values(entity_table="civicrm_contact", entity_id=contact_id, tag_id=tag_id))

    await site.store.write(give)
