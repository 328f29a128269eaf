"""Reads what fills merge fields, for a set of contacts at once: a statement or two for each kind of source.

A source may be missing (`find_missing`): a custom field or group that is switched off or deleted, a deleted tag, a
table that a site does not have. Nothing is known of its values then, which is not the same as that they are empty.
Contacts in the trash are not read at all.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Integer,
    Numeric,
    Table,
    and_,
    column,
    inspect,
    select,
)
from sqlalchemy import table as table_of

from civiapi.api.declaration.fields import BOOLEAN, OptionGroup
from civiapi.api.parameters import custom_fields
from civiapi.store.databases.column_types import SiteDate, SiteTime
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema import tables
from civiapi.store.schema.live_columns import live_columns
from sync import field_rules as kinds
from sync.data.rich_text import text_of
from sync.field_rules import Source

Values = dict[int, Any]
"""Contact id → value; a contact without a value may be left out."""

CONTACT_TYPES = ("Contact", "Individual", "Organization", "Household")
LABELLED = {"prefix_id": "individual_prefix", "suffix_id": "individual_suffix", "gender_id": "gender"}
TABLES = {kinds.MEMBERSHIP: "civicrm_membership", kinds.CONTRIBUTION: "civicrm_contribution"}
"""Tables of sources that are not declared here, as a site may not have them."""
PLACES = {"country": tables.country, "stateprovince": tables.state_province}
"""Types of custom fields whose values are ids of rows with a name."""
STATES_SHORT = ("US", "CA")
"""Countries whose addresses have the abbreviation of the state."""

GONE = "is switched off or deleted in CiviCRM"
NOT_COMPUTED = "is a smart group whose members CiviCRM has not computed, or has discarded"

_there: "WeakKeyDictionary[Engine, dict[str, frozenset[str]]]" = WeakKeyDictionary()


def read_values(conn: Connection, sources: Collection[Source], contact_ids: Sequence[int]) -> dict[Source, Values]:
    """What each source gives for these contacts; those that are missing give nothing."""
    found: dict[Source, Values] = {}
    for kind, theirs in _by_kind(sources).items():
        if kind == kinds.FIXED:
            found |= {one: dict.fromkeys(contact_ids, one.name) for one in theirs}
        elif contact_ids:
            found |= _READERS[kind](conn, theirs, contact_ids)
    return found


def find_missing(conn: Connection, sources: Collection[Source]) -> dict[Source, str]:
    """Which of these sources there are not now, and why (`GONE`, `NOT_COMPUTED`)."""
    found: dict[Source, str] = {}
    for kind, theirs in _by_kind(sources).items():
        if kind in _MISSING:
            found |= _MISSING[kind](conn, theirs)
    return found


def find_gone(conn: Connection, sources: Collection[Source]) -> list[Source]:
    """Which of these sources do not come back by themselves, in the order of their names."""
    return sorted((one for one, why in find_missing(conn, sources).items() if why == GONE), key=str)


def _by_kind(sources: Collection[Source]) -> dict[str, list[Source]]:
    found: dict[str, list[Source]] = defaultdict(list)
    for one in sources:
        found[one.kind].append(one)
    return found


def columns_of(conn: Connection, name: str) -> frozenset[str]:
    """The columns of a table of CiviCRM that is not declared here; none where the site does not have the table."""
    known = _there.setdefault(conn.engine, {})
    if name not in known:
        look = inspect(conn)
        if not look.has_table(name):
            return frozenset()
        known[name] = frozenset(one["name"] for one in look.get_columns(name))
    return known[name]


# ── The contact and what it has one primary of ──────────────────────────────────────────────────────────────────────


def _read_contacts(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    there = {one.name: one for one in live_columns(conn, tables.contact)}
    wanted = [one for one in sources if one.name in there]
    rows = conn.execute(
        select(tables.contact.c.id, *(there[one.name].label(f"v_{one.name}") for one in wanted)).where(
            in_list(tables.contact.c.id, ids), unindexed(tables.contact.c.is_deleted) == 0
        )
    ).all()
    labels = {one.name: _labels(conn, LABELLED[one.name]) for one in wanted if one.name in LABELLED}
    return {one: {row.id: _labelled(labels, one.name, getattr(row, f"v_{one.name}")) for row in rows} for one in wanted}


def _missing_columns(conn: Connection, sources: Sequence[Source]) -> dict[Source, str]:
    there = {one.name for one in live_columns(conn, tables.contact)}
    return {one: GONE for one in sources if one.name not in there}


def _labelled(labels: Mapping[str, Mapping[str, str]], name: str, value: Any) -> Any:
    return labels[name].get(str(value)) if name in labels and value is not None else value


def _labels(conn: Connection, group: str) -> dict[str, str]:
    """The labels of an option list, by value."""
    option, option_group = tables.option_value.c, tables.option_group.c
    rows = conn.execute(
        select(option.value, option.label)
        .join(tables.option_group, option_group.id == option.option_group_id)
        .where(option_group.name == group)
        .order_by(option.weight.desc(), option.id.desc())
    )
    return {row.value: row.label for row in rows}


def _read_addresses(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    address, state, country = tables.address.c, tables.state_province.c, tables.country.c
    rows = conn.execute(
        select(
            address.contact_id, address.street_address, address.supplemental_address_1, address.supplemental_address_2,
            address.city, address.postal_code, state.name.label("state_province"),
            state.abbreviation.label("state_province_code"), country.name.label("country"),
            country.iso_code.label("country_code"),
        )
        .outerjoin(tables.state_province, state.id == address.state_province_id)
        .outerjoin(tables.country, country.id == address.country_id)
        .where(in_list(address.contact_id, ids), address.is_primary == 1)
        .order_by(address.id)
    ).all()  # fmt: skip
    return {
        one: {
            row.contact_id: _whole_address(row) if one.name == kinds.WHOLE else getattr(row, one.name) for row in rows
        }
        for one in sources
    }


def _whole_address(row: Any) -> dict[str, Any]:
    is_short = row.country_code in STATES_SHORT and row.state_province_code
    lines = [one for one in (row.supplemental_address_1, row.supplemental_address_2) if one]
    return {
        "addr1": row.street_address,
        "addr2": ", ".join(lines),
        "city": row.city,
        "state": row.state_province_code if is_short else row.state_province,
        "zip": row.postal_code,
        "country": row.country_code,
    }


def _read_phones(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    phone = tables.phone.c
    mine = in_list(phone.contact_id, ids), phone.is_primary == 1
    rows = conn.execute(
        select(phone.contact_id, *(phone[one.name].label(f"v_{one.name}") for one in sources))
        .where(*mine)
        .order_by(phone.id)
    ).all()
    return {one: {row.contact_id: getattr(row, f"v_{one.name}") for row in rows} for one in sources}


def _read_emails(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    email, location = tables.email.c, tables.location_type.c
    rows = conn.execute(
        select(
            *(email[name] for name in ("contact_id", "email", "is_bulkmail", "on_hold")),
            location.display_name.label("location_type"),
        )
        .outerjoin(tables.location_type, location.id == email.location_type_id)
        .where(in_list(email.contact_id, ids), unindexed(email.is_primary) == 1)
        .order_by(email.id)
    ).all()  # fmt: skip
    found: dict[Source, Values] = {}
    for one in sources:
        values = {row.contact_id: getattr(row, one.name) for row in rows}
        is_flag = one.name in ("is_bulkmail", "on_hold")
        found[one] = {key: bool(value) for key, value in values.items()} if is_flag else values
    return found


# ── Custom fields ───────────────────────────────────────────────────────────────────────────────────────────────────


def _read_custom(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    found: dict[Source, Values] = {}
    for source, one in _custom_fields(conn, sources).items():
        table = one.table()
        rows = conn.execute(
            select(table.c.entity_id, table.c[one.column_name].label("value")).where(in_list(table.c.entity_id, ids))
        ).all()
        read = _custom_reader(conn, one, [row.value for row in rows])
        found[source] = {row.entity_id: None if row.value is None else read(row.value) for row in rows}
    return found


def _custom_fields(conn: Connection, sources: Sequence[Source]) -> dict[Source, custom_fields.CustomField]:
    """The custom fields of these sources that are there, switched on, and have one value for a contact."""
    named = {f"{custom_fields.PREFIX}{one.name}": one for one in sources}
    fields = custom_fields.read_fields(conn, CONTACT_TYPES, named)
    return {
        named[name]: one
        for name, one in fields.items()
        if not one.has_several_rows and columns_of(conn, one.table_name)
    }


def _missing_custom(conn: Connection, sources: Sequence[Source]) -> dict[Source, str]:
    return dict.fromkeys(set(sources) - _custom_fields(conn, sources).keys(), GONE)


def _custom_reader(conn: Connection, one: custom_fields.CustomField, values: Sequence[Any]) -> Callable[[Any], Any]:
    """What turns a stored value of a custom field into one to send: labels of options, yes or no, names of contacts,
    countries and states, the text of HTML."""
    options = one.field.options
    labels = _labels(conn, options.name) if isinstance(options, OptionGroup) else {}
    if one.data_type in PLACES:
        places = _place_names(conn, PLACES[one.data_type], values)
        if one.field.multiple:
            return lambda value: [places[part] for part in str(value).split("\x01") if part in places]
        return lambda value: places.get(str(value))
    if one.is_html:
        return lambda value: text_of(str(value))
    if one.field.multiple:
        return lambda value: [labels.get(part, part) for part in str(value).split("\x01") if part]
    if labels:
        return lambda value: labels.get(str(value), value)
    if one.field.type == BOOLEAN:
        return lambda value: bool(value)
    if one.field.fk == "Contact":
        ids = [value for value in values if value is not None]
        wanted = select(tables.contact.c.id, tables.contact.c.display_name).where(in_list(tables.contact.c.id, ids))
        names = {row.id: row.display_name for row in conn.execute(wanted)} if ids else {}
        return lambda value: names.get(value)
    return lambda value: value


def _place_names(conn: Connection, table: Table, values: Sequence[Any]) -> dict[str, str]:
    """The names of the countries, or states, that these values of a custom field name, by id as text."""
    ids = {int(part) for value in values if value is not None for part in str(value).split("\x01") if part.isdecimal()}
    wanted = select(table.c.id, table.c.name).where(in_list(table.c.id, sorted(ids)))
    return {str(row.id): row.name for row in conn.execute(wanted)} if ids else {}


# ── Memberships and contributions, where a site has them ────────────────────────────────────────────────────────────


def _missing_tables(conn: Connection, sources: Sequence[Source]) -> dict[Source, str]:
    return {one: GONE for one in sources if not columns_of(conn, TABLES[one.kind])}


def _foreign(conn: Connection, name: str, **columns: Any) -> tuple[FromClause, frozenset[str]] | None:
    """A table of CiviCRM's that is not declared, with these columns; and which it has. None where it is missing."""
    there = columns_of(conn, name)
    if not there:
        return None
    return table_of(name, *(column(key, kind) for key, kind in columns.items() if key in there)), there


def _real(rows: FromClause, there: frozenset[str]) -> list[ColumnElement[bool]]:
    return [unindexed(rows.c[name]) == 0 for name in ("is_test", "is_template") if name in there]


def _read_memberships(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    """Of the membership that ends last; one without an end counts where there is no other."""
    shape = {"id": Integer(), "contact_id": Integer(), "is_test": Integer()}
    dates = dict.fromkeys(("join_date", "start_date", "end_date"), SiteDate())
    found = _foreign(conn, TABLES[kinds.MEMBERSHIP], **shape, **dates)
    if found is None:
        return {}
    rows, there = found
    wanted = select(rows.c.contact_id, rows.c.join_date, rows.c.start_date, rows.c.end_date)
    latest: dict[int, Any] = {}
    mine = wanted.where(in_list(rows.c.contact_id, ids), *_real(rows, there)).order_by(rows.c.id)
    for row in conn.execute(mine):
        known = latest.get(row.contact_id)
        if known is None or (row.end_date or "") >= (known.end_date or ""):
            latest[row.contact_id] = row
    return {one: {key: getattr(row, one.name) for key, row in latest.items()} for one in sources}


def _read_contributions(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    """Of completed contributions, tests and templates aside."""
    numbers = ("id", "contact_id", "is_test", "is_template", "contribution_status_id")
    shape = dict.fromkeys(numbers, Integer())
    found = _foreign(
        conn,
        TABLES[kinds.CONTRIBUTION],
        **shape,
        receive_date=SiteTime(),
        total_amount=Numeric(20, 2, asdecimal=False),
    )
    if found is None:
        return {}
    rows, there = found
    done = next((value for value, name in _names(conn, "contribution_status").items() if name == "Completed"), "1")
    mine = and_(
        in_list(rows.c.contact_id, ids),
        *_real(rows, there),
        unindexed(rows.c.contribution_status_id) == int(done),
        rows.c.receive_date.is_not(None),
    )
    given: dict[int, list[Any]] = defaultdict(list)
    wanted = select(rows.c.contact_id, rows.c.id, rows.c.receive_date, rows.c.total_amount)
    for row in conn.execute(wanted.where(mine)):
        given[row.contact_id].append(row)
    return {one: {key: _CONTRIBUTIONS[one.name](theirs) for key, theirs in given.items()} for one in sources}


def _last(rows: Sequence[Any]) -> Any:
    return max(rows, key=lambda row: (row.receive_date, row.id))


def _largest(rows: Sequence[Any]) -> Any:
    return max(rows, key=lambda row: (row.total_amount, row.receive_date, row.id))


def _amount(row: Any) -> Decimal:
    return Decimal(str(row.total_amount)).quantize(Decimal("0.01"))


_CONTRIBUTIONS: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "last_date": lambda rows: _last(rows).receive_date[:10],
    "last_amount": lambda rows: _amount(_last(rows)),
    "largest_date": lambda rows: _largest(rows).receive_date[:10],
    "largest_amount": lambda rows: _amount(_largest(rows)),
    "count": len,
}


def _names(conn: Connection, group: str) -> dict[str, str]:
    option, option_group = tables.option_value.c, tables.option_group.c
    rows = conn.execute(
        select(option.value, option.name)
        .join(tables.option_group, option_group.id == option.option_group_id)
        .where(option_group.name == group)
    )
    return {row.value: row.name for row in rows}


# ── Yes or no ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_groups(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    """Whether they are in a group; in a smart group, as CiviCRM last computed it."""
    group_ids = [one.id for one in sources]
    inside, cached = tables.group_contact.c, tables.group_contact_cache.c
    plain = select(inside.contact_id, inside.group_id).where(
        in_list(inside.contact_id, ids), unindexed(inside.group_id).in_(group_ids), inside.status == "Added"
    )
    smart = select(cached.contact_id, cached.group_id).where(
        in_list(cached.contact_id, ids), unindexed(cached.group_id).in_(group_ids)
    )
    there = {(row.contact_id, row.group_id) for wanted in (plain, smart) for row in conn.execute(wanted)}
    return {one: {contact_id: (contact_id, one.id) in there for contact_id in ids} for one in sources}


def _missing_groups(conn: Connection, sources: Sequence[Source]) -> dict[Source, str]:
    """Groups that are deleted or switched off; and smart groups while CiviCRM's cache does not say who is in them."""
    group = tables.group.c
    wanted = select(group.id, group.is_active, group.saved_search_id, group.cache_date).where(
        group.id.in_([one.id for one in sources])
    )
    there = {row.id: row for row in conn.execute(wanted)}
    found: dict[Source, str] = {}
    for one in sources:
        row = there.get(one.id)
        if row is None or not row.is_active:
            found[one] = GONE
        elif row.saved_search_id and not row.cache_date:
            found[one] = NOT_COMPUTED
    return found


def _missing_tags(conn: Connection, sources: Sequence[Source]) -> dict[Source, str]:
    there = set(conn.execute(select(tables.tag.c.id).where(tables.tag.c.id.in_([one.id for one in sources]))).scalars())
    return {one: GONE for one in sources if one.id not in there}


def _read_tags(conn: Connection, sources: Sequence[Source], ids: Sequence[int]) -> dict[Source, Values]:
    """Whether they have a tag."""
    given = tables.entity_tag.c
    wanted = select(given.entity_id, given.tag_id).where(
        in_list(given.entity_id, ids),
        given.entity_table == "civicrm_contact",
        unindexed(given.tag_id).in_([one.id for one in sources]),
    )
    there = {(row.entity_id, row.tag_id) for row in conn.execute(wanted)}
    return {one: {contact_id: (contact_id, one.id) in there for contact_id in ids} for one in sources}


_READERS: Mapping[str, Callable[[Connection, Sequence[Source], Sequence[int]], dict[Source, Values]]] = {
    kinds.CONTACT: _read_contacts,
    kinds.ADDRESS: _read_addresses,
    kinds.PHONE: _read_phones,
    kinds.EMAIL: _read_emails,
    kinds.CUSTOM: _read_custom,
    kinds.MEMBERSHIP: _read_memberships,
    kinds.CONTRIBUTION: _read_contributions,
    kinds.GROUP: _read_groups,
    kinds.TAG: _read_tags,
}

_MISSING: Mapping[str, Callable[[Connection, Sequence[Source]], dict[Source, str]]] = {
    kinds.CONTACT: _missing_columns,
    kinds.CUSTOM: _missing_custom,
    kinds.MEMBERSHIP: _missing_tables,
    kinds.CONTRIBUTION: _missing_tables,
    kinds.GROUP: _missing_groups,
    kinds.TAG: _missing_tags,
}
"""The kinds of sources that may be missing; addresses, phones, emails and fixed texts are always there."""
