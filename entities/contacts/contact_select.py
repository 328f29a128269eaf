"""The SQL of Contact.get: the contact with its primary addresses and number, its employer and its custom fields.

Each table is joined only where a column, a filter or the order needs it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, false, func, or_, select

from civiapi.api import query
from civiapi.api.declaration.spec import Request
from civiapi.api.errors import ApiError
from civiapi.api.parameters.custom_fields import CustomField
from civiapi.api.permissions import contact_seen, rows_seen
from civiapi.store.databases.compiled_query import ME, Binder
from civiapi.store.databases.expressions import unindexed
from civiapi.store.schema import tables
from entities.contacts import contact_lists
from entities.contacts.contact_fields import FIELDS, OF_ADDRESS

contact = tables.contact
_email = tables.email.alias("primary_email")
_employer = contact.alias("employer")
_address = tables.address.alias("primary_address")
_country = tables.country.alias("country")
_state = tables.state_province.alias("state_province")
_phone = tables.phone.alias("primary_phone")

JOINED: Mapping[str, ColumnElement[Any]] = {
    "email": _email.c.email,
    "email_id": _email.c.id,
    "on_hold": _email.c.on_hold,
    "current_employer": _employer.c.display_name,
    "address_id": _address.c.id,
    **{name: _address.c[name] for name in OF_ADDRESS},
    "country": _country.c.name,
    "state_province": _state.c.abbreviation,
    "state_province_name": _state.c.name,
    "phone_id": _phone.c.id,
    "phone": _phone.c.phone,
    "phone_type_id": _phone.c.phone_type_id,
}
"""Columns of other tables by the names that get has for them."""

ALSO: Mapping[str, ColumnElement[Any]] = {"country": _country.c.iso_code, "state_province": _state.c.name}
"""What a plain filter of this name compares with as well."""

COLUMNS = frozenset(f.name for f in FIELDS if f.name in contact.c)
_OUTER: Mapping[FromClause, ColumnElement[bool]] = {
    _email: and_(_email.c.contact_id == contact.c.id, _email.c.is_primary == 1),
    _address: and_(_address.c.contact_id == contact.c.id, _address.c.is_primary == 1),
    _country: _country.c.id == _address.c.country_id,
    _state: _state.c.id == _address.c.state_province_id,
    _phone: and_(_phone.c.contact_id == contact.c.id, _phone.c.is_primary == 1),
}
"""The tables in the order in which they are joined, with the conditions."""


class ContactSelect:
    """Makes the select of a call; *custom*: the custom fields that it names."""

    def __init__(self, request: Request, custom: Mapping[str, CustomField]) -> None:
        self.request = request
        self._custom = custom
        self._custom_joins: dict[str, tuple[FromClause, ColumnElement[bool]]] = {}
        self._joined: set[FromClause] = set()

    def statement(
        self, filters: Sequence[query.Filter], sources: tuple[str, ...], bind: Binder
    ) -> tuple[Select[Any], tuple[str, ...]]:
        """The select of *sources* with *filters*, and the names of its columns."""
        request = self.request
        where = [self._condition(one, bind) for one in filters]
        if (seen := rows_seen(request.registry, request.entity, contact, ME)) is not None:
            where.append(seen)
        if request.options.is_count:
            return select(func.count(contact.c.id.distinct())).select_from(self._source()).where(*where), ("count",)
        order = self._order()
        needed = set(self._joined)
        columns = [self._column(name) for name in sources]
        if self._joined == needed or not (request.options.limit and request.options.sort):
            statement = select(*columns).select_from(self._source()).where(*where).order_by(*order)
            return query.limited(statement, request, bind), sources
        # What is only shown is joined to the rows that are left: an order without an index reads all rows first.
        every, self._joined = self._joined, needed
        page = query.limited(
            select(contact.c.id).select_from(self._source()).where(*where).order_by(*order), request, bind
        )
        self._joined = every
        shown = contact.c.id.in_(select(page.subquery("page").c.id))
        return select(*columns).select_from(self._source()).where(shown).order_by(*order), sources

    def _condition(self, one: query.Filter, bind: Binder) -> ColumnElement[bool]:
        if one.path in contact_lists.FILTERS:
            return contact_lists.condition(one, bind)
        if one.path == "uf_user":
            account = tables.uf_match.c.contact_id
            has_account = contact.c.id.in_(select(account).where(account.is_not(None)))
            return has_account if one.operator == "ACCOUNT" else ~has_account
        column = self._column(one.path)
        if one.operator == "NOT TRASHED":
            return query.condition(unindexed(column), "=", bind, 1)
        if one.operator == "NAME":
            return or_(column.like(bind()), self._column("email").like(bind()))
        if one.operator == "EITHER":
            return or_(column == bind(), ALSO[one.path] == bind())
        if one.operator.startswith("HOLDS"):
            return or_(false(), *(func.instr(column, bind()) > 0 for _ in one.values))
        return query.condition(column, one.sql_operator, bind, len(one.operands))

    def _column(self, name: str) -> ColumnElement[Any]:
        """The column behind a name that is known; its table will be joined."""
        if name in JOINED:
            self._joined.add(JOINED[name].table)
            return JOINED[name]
        if name in self._custom:
            return self._custom_column(self._custom[name])
        found = query.readable(self.request.registry, self.request.entity, contact, name)
        assert found is not None  # noqa: S101  filters, order and columns look names up before
        return found

    def _custom_column(self, one: CustomField) -> ColumnElement[Any]:
        if one.name not in self._custom_joins:
            there = one.table().alias(one.name)
            theirs = there.c.entity_id == contact.c.id
            if one.has_several_rows:
                other = one.table().alias(f"{one.name}_other")
                first = select(func.min(other.c.id)).where(other.c.entity_id == contact.c.id).scalar_subquery()
                theirs = and_(theirs, there.c.id == first)
            self._custom_joins[one.name] = there, theirs
        column = self._custom_joins[one.name][0].c[one.column_name]
        if not one.field.fk or one.field.multiple:
            return column
        seen = contact_seen(self.request.registry.access, column, ME)
        return column if seen is None else case((seen, column))

    def _source(self) -> FromClause:
        source: FromClause = contact
        if self._joined & {_country, _state}:
            self._joined.add(_address)
        for there, on in _OUTER.items():
            if there in self._joined:
                source = source.outerjoin(there, on)
        if _employer in self._joined:
            theirs = _employer.c.id == contact.c.employer_id
            seen = rows_seen(self.request.registry, self.request.entity, _employer, ME)
            source = source.outerjoin(_employer, theirs if seen is None else and_(theirs, seen))
        for there, on in self._custom_joins.values():
            source = source.outerjoin(there, on)
        return source

    def _order(self) -> list[ColumnElement[Any]]:
        out: list[ColumnElement[Any]] = []
        for part in self.request.options.sort:
            name, descending = query.sort_part(part)
            field = self.request.entity.by_name.get(name)
            custom = self._custom.get(name)
            hidden = custom.hides_contacts(self.request) if custom else field is None or field.name not in COLUMNS
            if name not in JOINED and hidden:
                raise ApiError(f"Unknown field specified for sort. Cannot order by '{part.strip()}'")
            known = field.name if field is not None and field.name in COLUMNS else name
            column = self._column(known)
            out.append(column.desc() if descending else column.asc())
        return [*out, contact.c.id.asc()]
