"""CiviCRM's own tables, with CiviCRM's names, as far as this program reads or writes them.

Only columns that we need are named (``../shared/contract/civicrm-tables.md``): a database made by another CiviCRM
version may hold more or fewer. The extension's tables and our own register on the same ``METADATA`` in
``sync/tables.py``. No rules here, only shapes.
"""

from typing import Any

from sqlalchemy import Column, ForeignKey, Index, MetaData, Table, UniqueConstraint, text

from civiapi.store.dialect import UTF8, SiteDate, SiteTime, flag, long_text, row_id, text_column

METADATA = MetaData()
PLAIN: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": UTF8}
NUMBERED = PLAIN | {"sqlite_autoincrement": True}  # an id once used is never given out again, as on MariaDB


def _id() -> "Column[int]":
    return Column("id", row_id(), primary_key=True, autoincrement=True)


def _flag(name: str, default: int = 0) -> "Column[int]":
    return Column(name, flag(), nullable=False, server_default=text(str(default)))


def _ref(name: str, target: str, *, ondelete: str | None = None, nullable: bool = True) -> "Column[int]":
    return Column(name, row_id(), ForeignKey(f"{target}.id", ondelete=ondelete), nullable=nullable)


contact = Table(
    "civicrm_contact",
    METADATA,
    _id(),
    Column("contact_type", text_column(64)),
    Column("external_identifier", text_column(64), unique=True),
    Column("display_name", text_column(128)),
    Column("organization_name", text_column(128)),
    Column("contact_sub_type", text_column(255)),
    Column("first_name", text_column(64)),
    Column("middle_name", text_column(64)),
    Column("last_name", text_column(64)),
    _flag("do_not_email"),
    _flag("do_not_phone"),
    _flag("do_not_mail"),
    _flag("do_not_sms"),
    _flag("do_not_trade"),
    _flag("is_opt_out"),
    Column("legal_identifier", text_column(32)),
    Column("sort_name", text_column(128)),
    Column("nick_name", text_column(128)),
    Column("legal_name", text_column(128)),
    Column("image_URL", long_text()),
    Column("preferred_communication_method", text_column(255)),
    Column("preferred_language", text_column(5)),
    Column("hash", text_column(32)),
    Column("api_key", text_column(32)),
    Column("source", text_column(255)),
    Column("prefix_id", row_id()),
    Column("suffix_id", row_id()),
    Column("formal_title", text_column(64)),
    Column("communication_style_id", row_id()),
    Column("email_greeting_id", row_id()),
    Column("email_greeting_custom", text_column(128)),
    Column("email_greeting_display", text_column(255)),
    Column("postal_greeting_id", row_id()),
    Column("postal_greeting_custom", text_column(128)),
    Column("postal_greeting_display", text_column(255)),
    Column("addressee_id", row_id()),
    Column("addressee_custom", text_column(128)),
    Column("addressee_display", text_column(255)),
    Column("job_title", text_column(255)),
    Column("gender_id", row_id()),
    Column("birth_date", SiteDate()),
    _flag("is_deceased"),
    Column("deceased_date", SiteDate()),
    Column("household_name", text_column(128)),
    _ref("primary_contact_id", "civicrm_contact", ondelete="SET NULL"),
    Column("sic_code", text_column(8)),
    Column("user_unique_id", text_column(255)),
    _ref("employer_id", "civicrm_contact", ondelete="SET NULL"),
    _flag("is_deleted"),
    Column("created_date", SiteTime(timestamp=True)),
    Column("modified_date", SiteTime(timestamp=True)),
    Column("preferred_mail_format", text_column(8), server_default="Both"),
    Index("index_api_key", "api_key"),
    Index("index_sort_name", "sort_name"),
    Index("index_is_deleted_sort_name", "is_deleted", "sort_name", "id"),
    Index("index_first_name", "first_name"),
    Index("index_last_name", "last_name"),
    Index("index_contact_type", "contact_type"),
    Index("index_modified_date", "modified_date"),
    **NUMBERED,
)

location_type = Table(
    "civicrm_location_type",
    METADATA,
    _id(),
    Column("name", text_column(64), nullable=False, unique=True),
    Column("display_name", text_column(64), nullable=False),
    Column("vcard_name", text_column(64)),
    Column("description", text_column(255)),
    _flag("is_reserved"),
    _flag("is_active", 1),
    _flag("is_default"),
    **NUMBERED,
)

email = Table(
    "civicrm_email",
    METADATA,
    _id(),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE"),
    Column("location_type_id", row_id()),
    Column("email", text_column(254)),
    _flag("is_primary"),
    _flag("is_billing"),
    Column("on_hold", row_id(), nullable=False, server_default=text("0")),
    _flag("is_bulkmail"),
    Column("hold_date", SiteTime()),
    Column("reset_date", SiteTime()),
    Column("signature_text", long_text()),
    Column("signature_html", long_text()),
    Index("UI_email", "email"),
    Index("FK_civicrm_email_contact_id", "contact_id"),
    **NUMBERED,
)

group = Table(
    "civicrm_group",
    METADATA,
    _id(),
    Column("name", text_column(64), nullable=False, unique=True),
    Column("title", text_column(255), nullable=False, unique=True),
    Column("description", long_text()),
    Column("source", text_column(64)),
    Column("saved_search_id", row_id()),
    _flag("is_active", 1),
    Column("visibility", text_column(24), server_default="User and User Admin Only"),
    Column("group_type", text_column(128)),
    Column("cache_date", SiteTime(timestamp=True)),
    Column("refresh_date", SiteTime(timestamp=True)),
    Column("parents", long_text()),
    Column("children", long_text()),
    _flag("is_hidden"),
    _flag("is_reserved"),
    _ref("created_id", "civicrm_contact", ondelete="SET NULL"),
    _ref("modified_id", "civicrm_contact", ondelete="SET NULL"),
    Column("frontend_title", text_column(255)),
    Column("frontend_description", long_text()),
    **NUMBERED,
)

group_contact = Table(
    "civicrm_group_contact",
    METADATA,
    _id(),
    _ref("group_id", "civicrm_group", ondelete="CASCADE", nullable=False),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE", nullable=False),
    Column("status", text_column(8)),
    Column("location_id", row_id()),
    Column("email_id", row_id()),
    UniqueConstraint("contact_id", "group_id", name="UI_contact_group"),
    Index("FK_civicrm_group_contact_group_id", "group_id"),
    **NUMBERED,
)

subscription_history = Table(
    "civicrm_subscription_history",
    METADATA,
    _id(),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE", nullable=False),
    _ref("group_id", "civicrm_group", ondelete="CASCADE"),
    Column("date", SiteTime(timestamp=True), nullable=False),
    Column("method", text_column(8)),
    Column("status", text_column(8)),
    Column("tracking", text_column(255)),
    Index("FK_civicrm_subscription_history_contact_id", "contact_id"),
    Index("FK_civicrm_subscription_history_group_id", "group_id"),
    **NUMBERED,
)

tag = Table(
    "civicrm_tag",
    METADATA,
    _id(),
    Column("name", text_column(64), nullable=False, unique=True),
    Column("label", text_column(64)),
    Column("description", text_column(255)),
    _ref("parent_id", "civicrm_tag"),
    _flag("is_selectable", 1),
    _flag("is_reserved"),
    _flag("is_tagset"),
    Column("used_for", text_column(64)),
    _ref("created_id", "civicrm_contact", ondelete="SET NULL"),
    Column("color", text_column(255)),
    Column("created_date", SiteTime()),
    **NUMBERED,
)

entity_tag = Table(
    "civicrm_entity_tag",
    METADATA,
    _id(),
    Column("entity_table", text_column(64)),
    Column("entity_id", row_id(), nullable=False),
    _ref("tag_id", "civicrm_tag", ondelete="CASCADE", nullable=False),
    UniqueConstraint("entity_id", "entity_table", "tag_id", name="UI_entity_id_entity_table_tag_id"),
    **NUMBERED,
)

domain = Table(
    "civicrm_domain",
    METADATA,
    _id(),
    Column("name", text_column(64), unique=True),
    Column("description", text_column(255)),
    Column("version", text_column(32)),
    _ref("contact_id", "civicrm_contact"),
    **NUMBERED,
)

setting = Table(
    "civicrm_setting",
    METADATA,
    _id(),
    Column("name", text_column(255)),
    Column("value", long_text()),
    _ref("domain_id", "civicrm_domain", ondelete="CASCADE"),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE"),
    _flag("is_domain"),
    Column("component_id", row_id()),
    Column("created_date", SiteTime()),
    _ref("created_id", "civicrm_contact", ondelete="SET NULL"),
    UniqueConstraint("domain_id", "contact_id", "name", name="index_domain_contact_name"),
    **NUMBERED,
)

job = Table(
    "civicrm_job",
    METADATA,
    _id(),
    _ref("domain_id", "civicrm_domain", nullable=False),
    Column("run_frequency", text_column(8), server_default="Daily"),
    Column("last_run", SiteTime(timestamp=True)),
    Column("last_run_end", SiteTime(timestamp=True)),
    Column("scheduled_run_date", SiteTime(timestamp=True)),
    Column("name", text_column(255)),
    Column("description", text_column(255)),
    Column("api_entity", text_column(255)),
    Column("api_action", text_column(255)),
    Column("parameters", long_text()),
    _flag("is_active", 1),
    **NUMBERED,
)

job_log = Table(
    "civicrm_job_log",
    METADATA,
    _id(),
    _ref("domain_id", "civicrm_domain", nullable=False),
    Column("run_time", SiteTime(timestamp=True)),
    _ref("job_id", "civicrm_job", ondelete="SET NULL"),
    Column("name", text_column(255)),
    Column("command", text_column(255)),
    Column("description", text_column(255)),
    Column("data", long_text()),
    **NUMBERED,
)

uf_match = Table(
    "civicrm_uf_match",
    METADATA,
    _id(),
    _ref("domain_id", "civicrm_domain", nullable=False),
    Column("uf_id", row_id(), nullable=False, server_default=text("0")),
    Column("uf_name", text_column(255)),
    _ref("contact_id", "civicrm_contact", ondelete="SET NULL"),
    Column("language", text_column(5)),
    UniqueConstraint("contact_id", "domain_id", name="UI_contact_domain_id"),
    UniqueConstraint("uf_name", "domain_id", name="UI_uf_name_domain_id"),
    **NUMBERED,
)

option_group = Table(
    "civicrm_option_group",
    METADATA,
    _id(),
    Column("name", text_column(64), nullable=False, unique=True),
    Column("title", text_column(255)),
    _flag("is_active", 1),
    **NUMBERED,
)

option_value = Table(
    "civicrm_option_value",
    METADATA,
    _id(),
    _ref("option_group_id", "civicrm_option_group", ondelete="CASCADE", nullable=False),
    Column("label", text_column(512), nullable=False),
    Column("value", text_column(512), nullable=False),
    Column("name", text_column(255)),
    Column("weight", row_id(), nullable=False, server_default=text("1")),
    Column("is_default", flag(), server_default=text("0")),
    Column("is_active", flag(), server_default=text("1")),
    Index("index_option_group_id_value", "option_group_id"),
    **NUMBERED,
)

# Ours: which contact a ``[user:NAME]`` of the settings stands for. Kept apart from the contact, so that editing a
# contact can never make it stand for a user.
user = Table(
    "civiapi_user",
    METADATA,
    Column("name", text_column(190), primary_key=True),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE", nullable=False),
    **PLAIN,
)

imported = Table(  # ours: which row of which import became which row here (``civiapi/importer``)
    "civiapi_import",
    METADATA,
    Column("source", text_column(32), primary_key=True),  # digest of the imported folder's data
    Column("entity", text_column(32), primary_key=True),
    Column("old_id", text_column(32), primary_key=True),  # the row's id in the file, or a digest where it has none
    Column("digest", text_column(32), nullable=False),  # of what identifies the row
    Column("new_id", row_id(), nullable=False),  # 0: left out, because it belongs to a row deleted since
    Column("made", flag(), nullable=False),  # 1: the import made the row; 0: it was there
    Index("civiapi_import_row", "entity", "old_id"),
    **PLAIN,
)
