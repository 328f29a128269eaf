"""Every way to ask the API, made from the declarations: what a caller with few rights may try, road by road.

``reads`` walks entities, fields, references and actions; ``writes`` walks the roads by which a row is written.
``plant`` fills a database with rows whose texts say whose they are, so that a leak can be seen in an answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from sqlalchemy import Connection, insert, update

from civiapi.api.declaration.fields import BOOLEAN, DATES, INT, STRING, TEXT, Field
from civiapi.api.declaration.spec import Entity, Registry
from civiapi.store.schema import tables
from civiapi.store.text.php import dump_php
from sync.store import tables as sync_tables

ME, OTHER, EMPLOYER, TRASHED, FIFTH = 1, 2, 3, 4, 5
OWN_EMAIL, OTHER_EMAIL, TRASHED_EMAIL = 11, 12, 14
SECRETS = ("api_key", "hash")
PROBES = ("display_name", "employer_id")
REFERENCES = ("employer_id", "master_id", "parent_id", "email_id")
DEPTH = 3  # references in a row
MANY = 40  # names in one return list: each reference is a join, and SQLite joins 64 tables

Sent = tuple[str, str, dict[str, Any]]
"""Entity, action, parameters."""


@dataclass(frozen=True)
class Variant:
    """What a planted database holds: one word for each kind of data, by which it is told from another."""

    key: str = "k0"  # the API keys of everybody but the caller
    own_key: str = "k0"
    hash: str = "h0"
    others: str = "o0"  # everything about contacts other than the caller, that are not in the trash
    trash: str = "t0"  # everything about the contact in the trash
    admin: str = "a0"  # what only an administrator may read
    marks: Mapping[str, str] = field(default_factory=dict)


def secret(kind: str, word: str, contact_id: int) -> str:
    """A secret as planted: 32 characters at most, unlike any other text."""
    return f"zz{kind}{word}zz{contact_id}"


def plant(conn: Connection, has: Variant) -> None:
    """Fill a new site's database."""
    for contact_id, word in ((ME, "me"), (OTHER, has.others), (EMPLOYER, has.others), (TRASHED, has.trash),
                             (FIFTH, has.others)):  # fmt: skip
        conn.execute(insert(tables.contact).values(_contact(contact_id, word, has)))
    conn.execute(update(tables.contact).where(tables.contact.c.id == FIFTH).values(primary_contact_id=TRASHED))
    for employed, employer, word in ((ME, EMPLOYER, has.others), (OTHER, EMPLOYER, has.others),
                                     (FIFTH, TRASHED, has.trash)):  # fmt: skip
        copied = {"employer_id": employer, "organization_name": _mark(word, employer)}
        conn.execute(update(tables.contact).where(tables.contact.c.id == employed).values(copied))
    moved = has.others != "o0"
    for row_id, contact_id, word in ((OWN_EMAIL, ME, "me"), (OTHER_EMAIL, OTHER, has.others), (13, FIFTH, has.others),
                                     (TRASHED_EMAIL, TRASHED, has.trash), (15, EMPLOYER, has.others),
                                     (16, ME, "me")):  # fmt: skip
        conn.execute(
            insert(tables.email).values(
                id=row_id, contact_id=contact_id, location_type_id=1,
                email=f"{_mark(word, contact_id)}@{row_id}.example.org",
                is_primary=int(row_id != 16), on_hold=int(word in ("o1", "t1")), signature_text=_mark(word, contact_id),
            )
        )  # fmt: skip
        place = {"id": row_id, "contact_id": contact_id, "location_type_id": 1, "is_primary": int(row_id != 16)}
        conn.execute(insert(tables.address).values(**place, street_address=_mark(word, contact_id), country_id=1,
                                                   city=_mark(word, contact_id)))  # fmt: skip
        conn.execute(insert(tables.phone).values(**place, phone=_mark(word, contact_id), phone_type_id=1))
    for number, creator in ((1, OTHER), (2, TRASHED)):
        conn.execute(
            insert(tables.group).values(
                id=number, name=f"g{number}", title=f"Group {number}", created_id=creator, modified_id=creator
            )
        )
        conn.execute(insert(tables.tag).values(id=number, name=f"t{number}", label=f"T{number}", created_id=creator,
                                               used_for="civicrm_contact"))  # fmt: skip
    members = [(1, ME, "Added"), (2, OTHER, "Removed" if moved else "Added"), (3, TRASHED, "Added")]
    members += [(4, FIFTH, "Added")] if moved else []
    for row_id, contact_id, status in (*members, (9, ME, "Removed")):
        group_id = 2 if row_id == 9 else 1
        row = {"group_id": group_id, "contact_id": contact_id, "status": status}
        conn.execute(insert(tables.group_contact).values(id=row_id, email_id=contact_id + 10, **row))
        conn.execute(insert(tables.subscription_history).values(id=row_id, date="2026-01-01 00:00:00", method="API",
                                                                tracking="", **row))  # fmt: skip
    tagged = [(1, ME, 1), (2, OTHER, 2 if moved else 1), (3, TRASHED, 2 if has.trash != "t0" else 1), (9, ME, 2)]
    for row_id, contact_id, tag_id in tagged:
        row = {"entity_table": "civicrm_contact", "entity_id": contact_id, "tag_id": tag_id}
        conn.execute(insert(tables.entity_tag).values(id=row_id, **row))
    for row_id, contact_id, word in ((1, ME, "me"), (2, OTHER, has.others), (3, TRASHED, has.trash)):
        about = {"entity_table": "civicrm_contact", "entity_id": contact_id, "contact_id": contact_id}
        conn.execute(insert(tables.note).values(id=row_id, note=_mark(word, contact_id), subject=word, **about))
    private = {"entity_table": "civicrm_contact", "entity_id": ME, "contact_id": OTHER, "privacy": "1"}
    conn.execute(insert(tables.note).values(id=4, note=f"zzadmin{has.admin}zz", **private))
    elsewhere = {"entity_table": "civicrm_contribution", "entity_id": ME, "contact_id": None}
    conn.execute(insert(tables.note).values(id=5, note=_mark(has.others, ME), **elsewhere))
    for row_id, a, b, word in (
        (1, OTHER, EMPLOYER, has.others),
        (2, ME, TRASHED, has.trash),
        (3, ME, OTHER, has.others),
    ):
        ends = {"contact_id_a": a, "contact_id_b": b, "relationship_type_id": 1, "is_active": int(moved)}
        conn.execute(insert(tables.relationship).values(id=row_id, description=_mark(word, b), **ends))
    _plant_activities(conn, has)
    _plant_references(conn, has)
    _plant_subjects(conn, has)
    conn.execute(insert(tables.custom_group).values(id=1, name="cg", title="cg", table_name="t", created_id=OTHER))
    field = {"name": "cf", "label": "cf", "data_type": "String", "html_type": "Text", "column_name": "c"}
    conn.execute(insert(tables.custom_field).values(id=1, custom_group_id=1, **field))
    conn.execute(update(tables.domain).values(contact_id=EMPLOYER))
    boss = {"uf_id": 7, "uf_name": "boss" if moved else "chief", "contact_id": OTHER, "domain_id": 1}
    conn.execute(insert(tables.uf_match).values(id=1, **boss))
    _plant_admin(conn, has.admin)


def _plant_activities(conn: Connection, has: Variant) -> None:
    """The caller's, in which everybody takes part; one of others; one of the contact in the trash."""
    for row_id, text in ((1, "mine"), (2, _mark(has.others, OTHER)), (3, _mark(has.trash, TRASHED))):
        dated = {"activity_date_time": "2026-01-01 00:00:00", "activity_type_id": 1, "status_id": 2}
        conn.execute(insert(tables.activity).values(id=row_id, subject=text, details=text, location=text, **dated))
    moved = has.others != "o0"
    parties = [(1, 1, ME, 2), (2, 2, OTHER, 2), (3, 3, TRASHED, 3), (4, 1, EMPLOYER if moved else OTHER, 3)]
    parties += [(5, 1, TRASHED, 3 if has.trash == "t0" else 1), (6, 2, FIFTH, 3 if moved else 1)]
    for row_id, activity_id, contact_id, kind in parties:
        row = {"activity_id": activity_id, "contact_id": contact_id, "record_type_id": kind}
        conn.execute(insert(tables.activity_contact).values(id=row_id, **row))


def _plant_references(conn: Connection, has: Variant) -> None:
    """What is the caller's refers to rows of others, and of the contact in the trash."""
    of_other = OTHER_EMAIL if has.others == "o0" else None
    of_trashed = TRASHED_EMAIL if has.trash == "t0" else None
    for table, column, referring, referred in (
        (tables.address, "master_id", OWN_EMAIL, of_other),
        (tables.address, "master_id", 16, of_trashed),
        (tables.group_contact, "email_id", 1, of_other),
        (tables.group_contact, "email_id", 9, of_trashed),
        (tables.activity, "parent_id", 1, of_other and 2),
        (tables.activity, "parent_id", 2, of_trashed and 3),
    ):
        conn.execute(update(table).where(table.c.id == referring).values({column: referred}))


def _plant_subjects(conn: Connection, has: Variant) -> None:
    """Tags and notes of an activity, an address and a note of the contact in the trash, and of a private note."""
    tag = {"entity_table": "civicrm_activity", "entity_id": 3, "tag_id": 1 if has.trash == "t0" else 2}
    conn.execute(insert(tables.entity_tag).values(id=10, **tag))
    for row_id, (table, about, text) in enumerate(
        (
            ("civicrm_activity", 3, _mark(has.trash, TRASHED)),
            ("civicrm_address", TRASHED_EMAIL, _mark(has.trash, TRASHED)),
            ("civicrm_note", 3, _mark(has.trash, TRASHED)),
            ("civicrm_note", 4, f"zzadmin{has.admin}zz"),
        ),
        6,
    ):
        subject = {"entity_table": table, "entity_id": about, "contact_id": OTHER}
        conn.execute(insert(tables.note).values(id=row_id, note=text, **subject))


def _plant_admin(conn: Connection, word: str) -> None:
    text = f"zzadmin{word}zz"
    config = '{"accounts":{"' + text + '":{"apiKey":"' + text + '"}},"lists":{}}'
    conn.execute(insert(tables.setting).values(name="mailchimpsync_config", value=dump_php(config).decode(),
                                               domain_id=1, is_domain=1))  # fmt: skip
    conn.execute(update(tables.job).values(parameters=text))
    conn.execute(insert(tables.job_log).values(id=1, domain_id=1, job_id=1, name=text, description=text, data=text))
    conn.execute(insert(sync_tables.cache).values(id=1, mailchimp_list_id="l1", mailchimp_email=text,
                                                  civicrm_contact_id=ME, sync_status="ok"))  # fmt: skip
    conn.execute(insert(sync_tables.update).values(id=1, mailchimpsync_cache_id=1, data=text))
    conn.execute(insert(sync_tables.batch).values(id=1, mailchimp_list_id="l1", mailchimp_batch_id=text[:32]))


def _mark(word: str, contact_id: int) -> str:
    return f"zz{word}zz{contact_id}"


def _contact(contact_id: int, word: str, has: Variant) -> dict[str, Any]:
    """A row in which everything that can differ does, by *word*."""
    odd = word in ("o1", "t1")
    row: dict[str, Any] = {}
    for column in tables.contact.c:
        length = getattr(column.type, "length", None)
        if column.name in ("id", "employer_id", "primary_contact_id", "contact_type", "is_deleted"):
            continue
        if column.name in ("created_date", "modified_date"):
            row[column.name] = "2026-01-02 00:00:00" if odd else "2026-01-01 00:00:00"
        elif column.name in ("birth_date", "deceased_date"):
            row[column.name] = "1990-01-02" if odd else "1990-01-01"
        elif column.type.python_type is int:
            row[column.name] = 1 + odd if column.nullable else int(odd)
        elif length is None or length >= 32:
            row[column.name] = _mark(word, contact_id)
    row |= {"preferred_language": "de_DE" if odd else "en_US", "preferred_communication_method": "\x011\x01",
            "preferred_mail_format": "Text" if odd else "Both", "sic_code": word, "contact_sub_type": None}  # fmt: skip
    row["api_key"] = secret("key", has.own_key if contact_id == ME else has.key, contact_id)
    row["hash"] = secret("hash", has.hash, contact_id)
    kind = "Organization" if contact_id == EMPLOYER else "Individual"
    return row | {"id": contact_id, "contact_type": kind, "is_deleted": int(contact_id == TRASHED)}


# ---- reading ----------------------------------------------------------------------------------------------------


def names_of(one: Field) -> list[str]:
    """Every name that a field goes by."""
    return [name for name in dict.fromkeys((one.name, one.unique_name, *one.aliases)) if name]


def paths(registry: Registry, entity: Entity, depth: int) -> list[str]:
    """Every name of the entity's fields, and every dotted name over at most *depth* references."""
    found = [name for one in entity.fields for name in names_of(one)]
    if depth == 0:
        return found
    for one in entity.fields:
        target = registry.find_entity(one.fk) if one.fk else None
        if target is not None:
            inner = paths(registry, target, depth - 1)
            if depth < DEPTH:  # the farther away, the fewer: secrets, and what tells people apart
                inner = [name for name in inner if name.rpartition(".")[2] in ("api_key", *PROBES)]
            found += [f"{one.name}.{name}" for name in inner]
    return found


def is_telling(path: str) -> bool:
    """Whether a name is of a secret, or of something that tells people apart."""
    return path.rpartition(".")[2] in (*SECRETS, *REFERENCES, "display_name", "organization_name", "is_deleted")


def conditions(path: str, field_type: int | None) -> list[Any]:
    """A filter with every operator, over values that are planted."""
    last = path.rpartition(".")[2]
    if last in SECRETS:
        kind = "key" if last == "api_key" else "hash"
        text = secret(kind, "k0" if kind == "key" else "h0", OTHER)
    elif field_type in (INT, BOOLEAN):
        return [1, {"=": OTHER}, {"!=": OTHER}, {"<>": 1}, {"<": OTHER}, {"<=": 1}, {">": 1}, {">=": OTHER},
                {"IN": [1, 2, 3, 4]}, {"NOT IN": [2]}, {"BETWEEN": [2, 4]}, {"NOT BETWEEN": [2, 4]},
                {"IS NULL": 1}, {"IS NOT NULL": 1}, {"LIKE": "2%"}, {"NOT LIKE": "2%"}]  # fmt: skip
    elif field_type in DATES:
        return [{">": "2026-01-01 12:00:00"}, {"<": "1990-01-01 12:00:00"}, {"IS NULL": 1}, {"LIKE": "19%"}]
    else:
        text = _mark("o0", OTHER)
    head = text[:-3]
    return [text, [text], {"=": text}, {"!=": text}, {"<>": text}, {"<": text}, {"<=": text}, {">": text}, {">=": text},
            {"LIKE": f"{head}%"}, {"NOT LIKE": f"{head}%"}, {"IN": [text, "x"]}, {"NOT IN": [text]},
            {"BETWEEN": [head, f"{text}z"]}, {"NOT BETWEEN": [head, text]}, {"IS NULL": 1}, {"IS NOT NULL": 1},
            f"{head}%"]  # fmt: skip


def _type_of(registry: Registry, entity: Entity, path: str) -> int | None:
    here: Entity | None = entity
    steps = path.split(".")
    for step in steps[:-1]:
        one = here.by_name[step] if here else None
        here = registry.find_entity(one.fk) if one and one.fk else None
    one = here.by_name.get(steps[-1]) if here else None
    return one.type if one else None


def reads(registry: Registry) -> Iterator[Sent]:
    """Every entity: return, filter, order, label and options over all of its fields and references."""
    for entity in registry.entities():
        yield from _reads(registry, entity)
    yield from CHAINED


def _reads(registry: Registry, entity: Entity) -> Iterator[Sent]:
    name, actions, everything = entity.name, registry.actions(entity), {"options": {"limit": 0}, "sequential": 1}
    for action in actions:
        if action.startswith("get") and action not in ("getvalue", "getoptions", "getfield", "getlist"):
            yield name, action, {**everything}
    if "get" not in actions:
        return
    wanted = paths(registry, entity, DEPTH if entity.table is not None else 0)
    for start in range(0, len(wanted), MANY):
        yield name, "get", {**everything, "return": wanted[start : start + MANY]}
    for turn, path in zip(cycle(range(101)), wanted, strict=False):
        yield from _about(registry, entity, path, turn)
    for contact_id in (ME, OTHER, EMPLOYER, TRASHED, FIFTH, 99):
        yield name, "get", {"id": contact_id, **everything}
        yield name, "getsingle", {"id": contact_id, "debug": 1}
        yield name, "getrefcount", {"id": contact_id}
    for action in ("get", "create", "delete", "getlist"):
        yield name, "getfields", {"api_action": action, "options": {"get_options": "all"}}
        yield name, "validate", {"action": action, "api_key": "x", "employer_id": OTHER, "contact_id": "@user:boss"}
    for text in ("zzo0", "zz", "2", "4"):
        yield name, "getlist", {"input": text}
    yield name, "getlist", {"id": [1, 2, 3, 4, 5]}


def _about(registry: Registry, entity: Entity, path: str, turn: int) -> Iterator[Sent]:
    """What is asked about one field: of a telling one everything, of the others each a part in turn."""
    name, everything = entity.name, {"limit": 0}
    tests = conditions(path, _type_of(registry, entity, path))
    telling = is_telling(path)
    near = path.count(".") < 2
    if not telling and "." in path and turn % 2:
        return
    for one in tests if telling and near else tests[turn % len(tests) :][: 1 + 2 * telling]:
        yield name, "getcount", {path: one}
    if telling or turn % 3 == 0:
        order = ("ASC", "DESC")[turn % 2]
        yield name, "get", {"return": ["id"], "options": {**everything, "sort": f"{path} {order}"}, "sequential": 1}
    if not telling or not near:
        return
    probe = tests[9 % len(tests)]
    yield name, "get", {path: probe, "id": {">": 0}, "options": {"or": [[path, "id"]], **everything}, "sequential": 1}
    yield name, "getvalue", {"id": OTHER, "return": path}
    yield name, "getvalue", {path: tests[0], "return": path}
    yield name, "getsingle", {path: tests[0]}
    yield name, "getlist", {"label_field": path, "input": "zz"}
    yield name, "getlist", {"search_field": path, "input": "zz"}
    yield name, "getlist", {"description_field": [path], "extra": [path], "input": ""}
    yield name, "getlist", {"id_field": path, "id": [OTHER, tests[0] if isinstance(tests[0], str) else 1]}
    yield name, "getlist", {"params": {path: probe}, "input": ""}
    for action in ("getoptions", "getfield"):
        yield name, action, {"field": path, "name": path}
    yield name, "get", {f"return.{path}": 1, "options": everything}


CHAINED: tuple[Sent, ...] = (
    *(
        ("Contact", "get", {"id": one, "api.Contact.get": {"id": other, "return": "api_key,hash,display_name"}})
        for one in (ME, OTHER)
        for other in (ME, OTHER, TRASHED)
    ),
    ("Group", "get", {"api.GroupContact.get": {"contact_id": OTHER}, "return": "member_count", "sequential": 1}),
    ("Group", "get", {"api.Contact.get": {"id": "$value.created_id", "return": "api_key"}, "sequential": 1}),
    ("Contact", "get", {"api.Email.getvalue": {"return": "contact_id.api_key", "options": {"limit": 1}}}),
    ("GroupContact", "get", {"contact_id": ME, "return": "contact_id.employer_id.display_name", "sequential": 1}),
    *(("GroupContact", "get", {"contact_id": one}) for one in (OTHER, TRASHED)),
    ("Contact", "get", {"showAll": "trash", "sequential": 1}),
    ("Contact", "get", {"showAll": "all", "sequential": 1, "return": "employer_id,current_employer,hash"}),
    *(("Contact", "get", {"group": group, "is_deleted": flag}) for group in (1, 2, "g1") for flag in (0, 1)),
    *(("EntityTag", "get", {"contact_id": one}) for one in (ME, OTHER, TRASHED)),
    *((entity, "get", {name: "@user:boss", "sequential": 1})
      for entity, name in (("Email", "contact_id"), ("Group", "created_id"), ("Contact", "employer_id"))),
    ("Group", "get", {"options": {"metadata": "fields"}}),
    ("Contact", "get", {"options": {"metadata": "fields"}, "debug": 1, "api_key": "x"}),
    ("Contact", "getsingle", {"current_employer": _mark("o0", EMPLOYER)}),
    ("Contact", "getcount", {"sort_name": "zzo0"}),
    ("Contact", "getcount", {"email": {"LIKE": "zzo0%"}}),
)  # fmt: skip


# ---- writing ----------------------------------------------------------------------------------------------------


def owned(registry: Registry) -> list[Entity]:
    """The entities whose rows belong to a contact and can be written."""
    return [one for one in registry.entities() if one.contact_field and one.action("create") and one.name != "Contact"]


def rows_of(entity: Entity, owner: int) -> int:
    """The id of a planted row of this entity that belongs to *owner*."""
    if entity.name in ("Address", "Email", "Phone"):
        return {ME: 16, OTHER: OTHER_EMAIL, TRASHED: TRASHED_EMAIL}[owner]
    return {ME: 1, OTHER: 2, TRASHED: 3}[owner]


def _sample(entity: Entity) -> dict[str, Any]:
    return {
        "ActivityContact": {"activity_id": 1, "record_type_id": 1},
        "Address": {"city": "taken"},
        "Email": {"email": "taken@example.org"},
        "Note": {"note": "taken", "entity_table": "civicrm_contact"},
        "Phone": {"phone": "0815"},
        "GroupContact": {"group_id": 2},
        "EntityTag": {"tag_id": 2, "entity_table": "civicrm_contact"},
    }.get(entity.name, {})


def writes(registry: Registry, victim: int) -> Iterator[Sent]:
    """Every road by which something of the victim could be written, moved, displaced, or a secret set."""
    for entity in owned(registry):
        name, owner = entity.name, entity.contact_field
        mine, theirs, sample = rows_of(entity, ME), rows_of(entity, victim), _sample(entity)
        flags = {one.name: 1 for one in entity.fields if one.type == BOOLEAN}
        for given in ({}, flags):
            yield name, "create", {owner: victim, **sample, **given}
            yield name, "create", {"id": mine, owner: victim, **given}
            yield name, "create", {"id": theirs, owner: ME, **given}
            yield name, "create", {"id": theirs, **sample, **given}
            yield name, "update", {"id": mine, owner: victim, **given}
            yield name, "replace", {owner: ME, "values": [{"id": theirs, **sample, **given}]}
            yield name, "replace", {owner: victim, "values": [{**sample, **given}]}
            yield name, "replace", {owner: ME, "values": [{"id": mine, owner: victim, **given}]}
            yield "Contact", "get", {"id": ME, f"api.{name}.create": {owner: victim, **sample, **given}}
            yield "Contact", "get", {"id": ME, f"api.{name}.create": [{"id": mine, owner: victim, **given}]}
            yield name, "create", {owner: victim, **sample, **given, "options": {"match": [owner]}}
        for one in entity.fields:
            yield name, "setvalue", {"id": theirs, "field": one.name, "value": ME if one.name == owner else 1}
        yield name, "setvalue", {"id": mine, "field": owner, "value": victim}
        yield name, "create", {f"{entity.snake}_id": theirs, owner: ME}
        yield name, "replace", {owner: victim, "values": []}
        yield name, "delete", {"id": theirs}
        yield name, "delete", {owner: victim, **sample}
        yield name, "create", {owner: f"{victim}", **sample}
        yield name, "create", {f"{owner}.1": victim, **sample}
        yield name, "create", {owner: [ME, victim], **sample}
    yield from _contact_writes(registry, victim)


def _contact_writes(registry: Registry, victim: int) -> Iterator[Sent]:
    contact = registry.find_entity("Contact")
    assert contact is not None
    for one in contact.fields:
        value: Any = 1 if one.type in (INT, BOOLEAN) else "2001-01-01" if one.type in DATES else "zzset"
        if one.options is not None and one.type in (STRING, TEXT):
            value = {"contact_type": "Organization", "preferred_language": "fr_FR"}.get(one.name, "Text")
        for name in names_of(one):
            yield "Contact", "create", {"id": victim, name: value}
        yield "Contact", "setvalue", {"id": victim, "field": one.name, "value": value}
    for row_id in (0, "0", "null", 0.5, "0.0", "-1", "x", False, True, "1e999", [], {}):
        yield "Contact", "create", {"id": row_id, "contact_type": "Organization", "organization_name": "zzmade"}
    yield "Contact", "create", {"contact_type": "Organization", "organization_name": "zzmade"}
    yield "Contact", "delete", {"id": victim}
    yield "Contact", "delete", {"id": victim, "skip_undelete": 1}
    yield "Contact", "delete", {"id": victim, "restore": 1}
    yield "Contact", "update", {"id": victim, "nick_name": "zzset"}
    yield "Contact", "replace", {"id": victim, "values": [{"id": victim, "nick_name": "zzset"}]}
    yield "Contact", "replace", {"contact_type": "Individual", "values": []}
    for employer in ("zzmade", f"zzo0zz{EMPLOYER}"):
        yield "Contact", "create", {"id": ME, "current_employer": employer}
    for name in ("employer_id", "primary_contact_id"):
        yield "Contact", "create", {"id": ME, name: victim}
    yield "Contact", "create", {"id": ME, "is_deleted": 1}
    yield "Contact", "create", {"id": ME, "contact_type": "Organization", "organization_name": "zzset"}


def secret_writes(whose: int) -> Iterator[Sent]:
    """Every road by which a key or hash could be set on this contact."""
    new = {"contact_type": "Individual", "first_name": "zzmade"}
    for name in SECRETS:
        for value in (f"zzforged{name}", "", "null", 0, ["zzforged"], {"LIKE": "%"}):
            yield "Contact", "create", {"id": whose, name: value}
            yield "Contact", "create", {**new, name: value}
            yield "Contact", "setvalue", {"id": whose, "field": name, "value": value}
        forged = f"zzforged{name}"
        yield "Contact", "update", {"id": whose, name: forged}
        yield "Contact", "create", {"contact_id": whose, name: forged}
        yield "Contact", "replace", {"id": whose, "values": [{"id": whose, name: forged}]}
        yield "Contact", "replace", {"id": whose, name: forged, "values": [{"id": whose}]}
        yield "Contact", "get", {"id": whose, "api.Contact.create": {name: forged}}
        yield "Contact", "getsingle", {"id": whose, "api_contact_create": {name: forged}}
        yield "Contact", "create", {**new, name: forged, "options": {"match": [name]}}
        yield "Contact", "create", {**new, name: forged, "options": {"match": ["first_name"]}}
        yield "Contact", "create", {"id": whose, name: forged, "options": {"match": "id", "reload": 1}}
        yield "Email", "get", {"contact_id": whose, "api.Contact.create": {"id": whose, name: forged}}
