"""The CSV files that an import reads, with their columns. Pure: no files, no database.

A file holds one of CiviCRM's tables under CiviCRM's column names, with the ids of the source. An empty cell takes the
default of its column; a time without an offset is in the time zone of the import.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from civiapi.importer.cells import Reader, address, choice, day, flag, html, moment, number, several, text
from civiapi.store.civicrm.contact_names import NAME_LIMIT
from civiapi.store.civicrm.group_membership import GroupStatus
from civiapi.store.schema.tables import (
    contact,
    email,
    entity_tag,
    group,
    group_contact,
    location_type,
    subscription_history,
    tag,
)
from civiapi.store.text.encoded_text import cut

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its reader (raises ``ValueError``) and its default."""

    name: str
    read: Reader
    default: Any = None
    required: bool = False
    expected: bool = False  # the column must exist, but cells may be empty
    refers: str = ""  # the sheet (or table) that this id refers to
    later: bool = False  # refers to rows of its own file, which may follow later
    into: str = ""  # the column of the table, if its name differs
    by_name: bool = False  # refers by name, not by id

    @property
    def target(self) -> str:
        """The column of the table."""
        return self.into or self.name


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file: its table, columns and keys.

    A row with the same id is the same row if its ``identity`` columns are equal. ``natural`` columns are unique in the
    database: a row with the same values is the same row. ``finish`` fills missing values. In an ``ordered`` sheet the
    order of ids is significant, so all ids are shifted or none.
    """

    name: str
    table: Table
    columns: tuple[Column, ...]
    identity: tuple[str, ...]
    finish: Callable[[Row, str], None]
    natural: tuple[str, ...] = ()
    unique: str = ""
    needs_id: bool = True
    ordered: bool = False

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.csv"

    @property
    def required(self) -> list[str]:
        """The columns that its heading must have."""
        wanted = [column.name for column in self.columns if column.required or column.expected]
        return ["id", *wanted] if self.needs_id else wanted

    def column(self, name: str) -> Column | None:
        """The column with this name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)


# ---- defaults -------------------------------------------------------------------------------------


def _finish_contact(row: Row, now: str) -> None:
    kind = row["contact_type"]
    own = {"Household": "household_name", "Organization": "organization_name"}.get(kind)
    if own and not row.get(own):
        if not row.get("display_name"):
            raise ValueError(f"{own} is missing, which a {kind} must have")
        row[own] = row["display_name"]
    parts = [row.get(name) for name in ("first_name", "middle_name", "last_name")]
    whole = row[own] if own else " ".join(part for part in parts if part)
    turned = row[own] if own else ", ".join(part for part in (parts[2], parts[0]) if part)
    row["display_name"] = row.get("display_name") or cut(whole, NAME_LIMIT) or None
    row["sort_name"] = row.get("sort_name") or cut(turned, NAME_LIMIT) or row["display_name"]
    row["created_date"] = row.get("created_date") or now
    row["modified_date"] = row.get("modified_date") or now


def _finish_group(row: Row, now: str) -> None:
    title = row.get("title") or row.get("name")
    if not title:
        raise ValueError("title is missing")
    row["title"] = title
    row["name"] = row.get("name") or re.sub(r"[^A-Za-z0-9]+", "_", title)[:64]
    row["frontend_title"] = row.get("frontend_title") or title


def _finish_tag(row: Row, now: str) -> None:
    row["label"] = row.get("label") or row["name"]
    row["used_for"] = row.get("used_for") or "civicrm_contact"
    row["created_date"] = row.get("created_date") or now


def _finish_email(row: Row, now: str) -> None:
    if row.get("on_hold"):
        row["hold_date"] = row.get("hold_date") or now
    else:
        row.setdefault("hold_date", None)


def _finish_entity_tag(row: Row, now: str) -> None:
    if not row.get("tag_id"):
        raise ValueError("tag is missing")
    if not row.get("entity_id"):
        raise ValueError("contact_id is missing")
    row["entity_table"] = "civicrm_contact"


def _complete(row: Row, now: str) -> None:
    """No defaults."""


# ---- the sheets, in the order they are loaded --------------------------------------------------------------------


def _flags(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, flag, 0) for name in names)


def _texts(**lengths: int) -> tuple[Column, ...]:
    return tuple(Column(name, text(length)) for name, length in lengths.items())


_ID = Column("id", number)
_STATUSES = (GroupStatus.ADDED, GroupStatus.REMOVED, GroupStatus.PENDING)
_CONTACT = Column("contact_id", number, required=True, refers="contacts")
_GROUP = Column("group_id", number, required=True, refers="groups")

CONTACTS = Sheet(
    "contacts",
    contact,
    (
        _ID,
        Column("contact_type", choice("Individual", "Household", "Organization"), required=True),
        Column("contact_sub_type", several(255)),
        *_flags("do_not_email", "do_not_phone", "do_not_mail", "do_not_sms", "do_not_trade", "is_opt_out"),
        *_flags("is_deceased", "is_deleted"),
        *_texts(external_identifier=64, legal_identifier=32, display_name=128, sort_name=128, nick_name=128),
        *_texts(legal_name=128, first_name=64, middle_name=64, last_name=64, organization_name=128),
        *_texts(household_name=128, formal_title=64, job_title=255, source=255, preferred_language=5, hash=32),
        *_texts(api_key=32, image_URL=65_535, sic_code=8, user_unique_id=255),
        *_texts(email_greeting_custom=128, email_greeting_display=255, postal_greeting_custom=128),
        *_texts(postal_greeting_display=255, addressee_custom=128, addressee_display=255),
        Column("preferred_communication_method", several(255)),
        Column("preferred_mail_format", choice("Both", "HTML", "Text"), "Both"),
        *(Column(n, number) for n in ("prefix_id", "suffix_id", "gender_id", "communication_style_id")),
        *(Column(n, number) for n in ("email_greeting_id", "postal_greeting_id", "addressee_id")),
        Column("birth_date", day),
        Column("deceased_date", day),
        Column("created_date", moment),
        Column("modified_date", moment),
        Column("employer_id", number, refers="contacts", later=True),
        Column("primary_contact_id", number, refers="contacts", later=True),
    ),
    identity=(
        *("contact_type", "first_name", "middle_name", "last_name"),
        *("organization_name", "household_name", "display_name"),
    ),
    unique="external_identifier",
    finish=_finish_contact,
)

EMAILS = Sheet(
    "emails",
    email,
    (
        _ID,
        Column("contact_id", number, expected=True, refers="contacts"),  # empty: an address of an event or a domain
        Column("email", address, required=True),
        Column("location_type_id", number, refers="location_types"),
        *_flags("is_primary", "is_billing", "is_bulkmail"),
        Column("on_hold", lambda cell: int(choice("0", "1", "2")(cell)), 0),
        Column("hold_date", moment),
        Column("reset_date", moment),
        *_texts(signature_text=65_535),
        Column("signature_html", html(65_535)),
    ),
    identity=("contact_id", "email"),
    finish=_finish_email,
    needs_id=False,
)

GROUPS = Sheet(
    "groups",
    group,
    (
        _ID,
        *_texts(name=64, title=255, description=65_535, source=64),
        *_texts(frontend_title=255, frontend_description=65_535),
        Column("is_active", flag, 1),
        Column("visibility", choice("User and User Admin Only", "Public Pages"), "User and User Admin Only"),
        Column("group_type", several(128, {"Access Control": "1", "Mailing List": "2"})),
        *_flags("is_hidden", "is_reserved"),
        Column("created_id", number, refers="contacts"),
        Column("modified_id", number, refers="contacts"),
    ),
    identity=("name",),
    natural=("name",),
    unique="title",
    finish=_finish_group,
)

GROUP_CONTACTS = Sheet(
    "group_contacts",
    group_contact,
    (_ID, _GROUP, _CONTACT, Column("status", choice(*_STATUSES), GroupStatus.ADDED)),
    identity=("group_id", "contact_id"),
    natural=("contact_id", "group_id"),
    finish=_complete,
    needs_id=False,
)

SUBSCRIPTION_HISTORY = Sheet(
    "subscription_history",
    subscription_history,
    (
        _ID,
        _CONTACT,
        _GROUP,
        Column("date", moment, required=True),
        Column("method", text(8)),
        Column("status", choice(*_STATUSES, GroupStatus.DELETED), required=True),
        Column("tracking", text(255)),
    ),
    identity=("contact_id", "group_id", "date", "method", "status"),
    finish=_complete,
    needs_id=False,
    ordered=True,
)

TAGS = Sheet(
    "tags",
    tag,
    (
        _ID,
        Column("name", text(64), required=True),
        *_texts(label=64, description=255, color=255, used_for=64),
        Column("is_selectable", flag, 1),
        *_flags("is_reserved", "is_tagset"),
        Column("created_id", number, refers="contacts"),
        Column("created_date", moment),
        Column("parent_id", number, refers="tags", later=True),
    ),
    identity=("name",),
    natural=("name",),
    finish=_finish_tag,
)

ENTITY_TAGS = Sheet(
    "entity_tags",
    entity_tag,
    (
        _ID,
        Column("tag_id", number, refers="tags"),
        Column("tag", text(64), refers="tags", into="tag_id", by_name=True),
        Column("contact_id", number, refers="contacts", into="entity_id"),
        Column("entity_id", number, refers="contacts"),
        Column("entity_table", choice("civicrm_contact"), "civicrm_contact"),
    ),
    identity=("entity_id", "tag_id"),
    natural=("entity_id", "entity_table", "tag_id"),
    finish=_finish_entity_tag,
    needs_id=False,
)

SHEETS = (CONTACTS, EMAILS, GROUPS, GROUP_CONTACTS, SUBSCRIPTION_HISTORY, TAGS, ENTITY_TAGS)
TARGETS: dict[str, Table] = {sheet.name: sheet.table for sheet in SHEETS} | {"location_types": location_type}
