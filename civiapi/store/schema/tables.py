"""CiviCRM's own tables, with CiviCRM's names, as far as this program reads or writes them.

Only columns that we need are named (``../shared/contract/civicrm-tables.md``): a database made by another CiviCRM
version may hold more or fewer. Their text is stored encoded (``encoded_text.py``), but for HTML and serialized values.
The extension's tables and our own register on the same ``METADATA`` in ``sync/store/tables.py``. No rules here, only
shapes.
"""

from typing import Any

from sqlalchemy import Column, Double, ForeignKey, Index, MetaData, Table, UniqueConstraint, text

from civiapi.store.databases.column_types import (
    SiteDate,
    SiteTime,
    big_number,
    civicrm_long_text,
    civicrm_text,
    code_column,
    flag,
    long_text,
    row_id,
    signed,
)
from civiapi.store.databases.text_keys import MOSTLY_NULL
from civiapi.store.text.collation import NAME as UTF8

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
    Column("contact_type", code_column(64)),
    Column("external_identifier", civicrm_text(64), unique=True),
    Column("display_name", civicrm_text(128)),
    Column("organization_name", civicrm_text(128)),
    Column("contact_sub_type", civicrm_text(255)),
    Column("first_name", civicrm_text(64)),
    Column("middle_name", civicrm_text(64)),
    Column("last_name", civicrm_text(64)),
    _flag("do_not_email"),
    _flag("do_not_phone"),
    _flag("do_not_mail"),
    _flag("do_not_sms"),
    _flag("do_not_trade"),
    _flag("is_opt_out"),
    Column("legal_identifier", civicrm_text(32)),
    Column("sort_name", civicrm_text(128)),
    Column("nick_name", civicrm_text(128)),
    Column("legal_name", civicrm_text(128)),
    Column("image_URL", civicrm_long_text()),
    Column("preferred_communication_method", civicrm_text(255)),
    Column("preferred_language", civicrm_text(5)),
    Column("hash", civicrm_text(32)),
    Column("api_key", civicrm_text(32)),
    Column("source", civicrm_text(255)),
    Column("prefix_id", row_id()),
    Column("suffix_id", row_id()),
    Column("formal_title", civicrm_text(64)),
    Column("communication_style_id", row_id()),
    Column("email_greeting_id", row_id()),
    Column("email_greeting_custom", civicrm_text(128)),
    Column("email_greeting_display", civicrm_text(255)),
    Column("postal_greeting_id", row_id()),
    Column("postal_greeting_custom", civicrm_text(128)),
    Column("postal_greeting_display", civicrm_text(255)),
    Column("addressee_id", row_id()),
    Column("addressee_custom", civicrm_text(128)),
    Column("addressee_display", civicrm_text(255)),
    Column("job_title", civicrm_text(255)),
    Column("gender_id", row_id()),
    Column("birth_date", SiteDate()),
    _flag("is_deceased"),
    Column("deceased_date", SiteDate()),
    Column("household_name", civicrm_text(128)),
    _ref("primary_contact_id", "civicrm_contact", ondelete="SET NULL"),
    Column("sic_code", civicrm_text(8)),
    Column("user_unique_id", civicrm_text(255)),
    _ref("employer_id", "civicrm_contact", ondelete="SET NULL"),
    _flag("is_deleted"),
    Column("created_date", SiteTime(timestamp=True)),
    Column("modified_date", SiteTime(timestamp=True)),
    Column("preferred_mail_format", civicrm_text(8), server_default="Both"),
    Index("index_api_key", "api_key", info=MOSTLY_NULL),
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
    Column("name", civicrm_text(64), nullable=False, unique=True),
    Column("display_name", civicrm_text(64), nullable=False),
    Column("vcard_name", civicrm_text(64)),
    Column("description", civicrm_text(255)),
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
    Column("email", civicrm_text(254)),
    _flag("is_primary"),
    _flag("is_billing"),
    Column("on_hold", row_id(), nullable=False, server_default=text("0")),
    _flag("is_bulkmail"),
    Column("hold_date", SiteTime()),
    Column("reset_date", SiteTime()),
    Column("signature_text", civicrm_long_text()),
    Column("signature_html", long_text()),  # HTML
    Index("UI_email", "email"),
    Index("FK_civicrm_email_contact_id", "contact_id"),
    **NUMBERED,
)

group = Table(
    "civicrm_group",
    METADATA,
    _id(),
    Column("name", civicrm_text(64), nullable=False, unique=True),
    Column("title", civicrm_text(255), nullable=False, unique=True),
    Column("description", civicrm_long_text()),
    Column("source", civicrm_text(64)),
    Column("saved_search_id", row_id()),
    _flag("is_active", 1),
    Column("visibility", civicrm_text(24), server_default="User and User Admin Only"),
    Column("group_type", civicrm_text(128)),
    Column("cache_date", SiteTime(timestamp=True)),
    Column("refresh_date", SiteTime(timestamp=True)),
    Column("parents", civicrm_long_text()),
    Column("children", civicrm_long_text()),
    _flag("is_hidden"),
    _flag("is_reserved"),
    _ref("created_id", "civicrm_contact", ondelete="SET NULL"),
    _ref("modified_id", "civicrm_contact", ondelete="SET NULL"),
    Column("frontend_title", civicrm_text(255)),
    Column("frontend_description", civicrm_long_text()),
    **NUMBERED,
)

group_contact = Table(
    "civicrm_group_contact",
    METADATA,
    _id(),
    _ref("group_id", "civicrm_group", ondelete="CASCADE", nullable=False),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE", nullable=False),
    Column("status", code_column(8)),
    Column("location_id", row_id()),
    Column("email_id", row_id()),
    UniqueConstraint("contact_id", "group_id", name="UI_contact_group"),
    Index("FK_civicrm_group_contact_group_id", "group_id"),
    **NUMBERED,
)

group_nesting = Table(
    "civicrm_group_nesting",
    METADATA,
    _id(),
    _ref("child_group_id", "civicrm_group", ondelete="CASCADE", nullable=False),
    _ref("parent_group_id", "civicrm_group", ondelete="CASCADE", nullable=False),
    Index("FK_civicrm_group_nesting_child_group_id", "child_group_id"),
    Index("FK_civicrm_group_nesting_parent_group_id", "parent_group_id"),
    **NUMBERED,
)

subscription_history = Table(
    "civicrm_subscription_history",
    METADATA,
    _id(),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE", nullable=False),
    _ref("group_id", "civicrm_group", ondelete="CASCADE"),
    Column("date", SiteTime(timestamp=True), nullable=False),
    Column("method", civicrm_text(8)),
    Column("status", code_column(8)),
    Column("tracking", civicrm_text(255)),
    Index("FK_civicrm_subscription_history_contact_id", "contact_id"),
    Index("FK_civicrm_subscription_history_group_id", "group_id"),
    Index("civiapi_history_group_status", "group_id", "status"),
    **NUMBERED,
)

tag = Table(
    "civicrm_tag",
    METADATA,
    _id(),
    Column("name", civicrm_text(64), nullable=False, unique=True),
    Column("label", civicrm_text(64)),
    Column("description", civicrm_text(255)),
    _ref("parent_id", "civicrm_tag"),
    _flag("is_selectable", 1),
    _flag("is_reserved"),
    _flag("is_tagset"),
    Column("used_for", civicrm_text(64)),
    _ref("created_id", "civicrm_contact", ondelete="SET NULL"),
    Column("color", civicrm_text(255)),
    Column("created_date", SiteTime()),
    **NUMBERED,
)

entity_tag = Table(
    "civicrm_entity_tag",
    METADATA,
    _id(),
    Column("entity_table", code_column(64)),
    Column("entity_id", row_id(), nullable=False),
    _ref("tag_id", "civicrm_tag", ondelete="CASCADE", nullable=False),
    UniqueConstraint("entity_id", "entity_table", "tag_id", name="UI_entity_id_entity_table_tag_id"),
    **NUMBERED,
)

domain = Table(
    "civicrm_domain",
    METADATA,
    _id(),
    Column("name", civicrm_text(64), unique=True),
    Column("description", civicrm_text(255)),
    Column("version", civicrm_text(32)),
    _ref("contact_id", "civicrm_contact"),
    **NUMBERED,
)

setting = Table(
    "civicrm_setting",
    METADATA,
    _id(),
    Column("name", code_column(255)),
    Column("value", long_text()),  # serialized
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
    Column("run_frequency", civicrm_text(8), server_default="Daily"),
    Column("last_run", SiteTime(timestamp=True)),
    Column("last_run_end", SiteTime(timestamp=True)),
    Column("scheduled_run_date", SiteTime(timestamp=True)),
    Column("name", civicrm_text(255)),
    Column("description", civicrm_text(255)),
    Column("api_entity", civicrm_text(255)),
    Column("api_action", civicrm_text(255)),
    Column("parameters", civicrm_long_text()),
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
    Column("name", civicrm_text(255)),
    Column("command", civicrm_text(255)),
    Column("description", civicrm_text(255)),
    Column("data", civicrm_long_text()),
    **NUMBERED,
)

uf_match = Table(
    "civicrm_uf_match",
    METADATA,
    _id(),
    _ref("domain_id", "civicrm_domain", nullable=False),
    Column("uf_id", row_id(), nullable=False, server_default=text("0")),
    Column("uf_name", civicrm_text(255)),
    _ref("contact_id", "civicrm_contact", ondelete="SET NULL"),
    Column("language", civicrm_text(5)),
    UniqueConstraint("contact_id", "domain_id", name="UI_contact_domain_id"),
    UniqueConstraint("uf_name", "domain_id", name="UI_uf_name_domain_id"),
    **NUMBERED,
)

option_group = Table(
    "civicrm_option_group",
    METADATA,
    _id(),
    Column("name", civicrm_text(64), nullable=False, unique=True),
    Column("title", civicrm_text(255)),
    Column("description", civicrm_long_text()),
    Column("data_type", civicrm_text(128)),
    _flag("is_reserved", 1),
    _flag("is_active", 1),
    _flag("is_locked"),
    **NUMBERED,
)

option_value = Table(
    "civicrm_option_value",
    METADATA,
    _id(),
    _ref("option_group_id", "civicrm_option_group", ondelete="CASCADE", nullable=False),
    Column("label", civicrm_text(512), nullable=False),
    Column("value", civicrm_text(512), nullable=False),
    Column("name", civicrm_text(255)),
    Column("grouping", civicrm_text(255)),
    Column("filter", row_id(), server_default=text("0")),
    Column("is_default", flag(), server_default=text("0")),
    Column("weight", row_id(), nullable=False, server_default=text("1")),
    Column("description", civicrm_long_text()),
    Column("is_optgroup", flag(), server_default=text("0")),
    Column("is_reserved", flag(), server_default=text("0")),
    Column("is_active", flag(), server_default=text("1")),
    Column("component_id", row_id()),
    Column("domain_id", row_id()),
    Column("visibility_id", row_id()),
    Column("icon", civicrm_text(255)),
    Column("color", civicrm_text(255)),
    Index("index_option_group_id_value", "option_group_id"),
    **NUMBERED,
)

country = Table(
    "civicrm_country",
    METADATA,
    _id(),
    Column("name", civicrm_text(64)),
    Column("iso_code", civicrm_text(2)),
    _flag("is_active", 1),
    UniqueConstraint("name", "iso_code", name="UI_name_iso_code"),
    **NUMBERED,
)

state_province = Table(
    "civicrm_state_province",
    METADATA,
    _id(),
    Column("name", civicrm_text(64)),
    Column("abbreviation", civicrm_text(4)),
    _ref("country_id", "civicrm_country", nullable=False),
    _flag("is_active", 1),
    UniqueConstraint("name", "country_id", name="UI_name_country_id"),
    **NUMBERED,
)

address = Table(
    "civicrm_address",
    METADATA,
    _id(),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE"),
    Column("location_type_id", row_id()),
    _flag("is_primary"),
    _flag("is_billing"),
    Column("street_address", civicrm_text(96)),
    Column("street_number", signed()),
    Column("street_number_suffix", civicrm_text(8)),
    Column("street_number_predirectional", civicrm_text(8)),
    Column("street_name", civicrm_text(64)),
    Column("street_type", civicrm_text(8)),
    Column("street_number_postdirectional", civicrm_text(8)),
    Column("street_unit", civicrm_text(16)),
    Column("supplemental_address_1", civicrm_text(96)),
    Column("supplemental_address_2", civicrm_text(96)),
    Column("supplemental_address_3", civicrm_text(96)),
    Column("city", civicrm_text(64)),
    Column("county_id", row_id()),
    _ref("state_province_id", "civicrm_state_province", ondelete="SET NULL"),
    Column("postal_code_suffix", civicrm_text(12)),
    Column("postal_code", civicrm_text(64)),
    Column("usps_adc", civicrm_text(32)),
    _ref("country_id", "civicrm_country", ondelete="SET NULL"),
    Column("geo_code_1", Double()),
    Column("geo_code_2", Double()),
    _flag("manual_geo_code"),
    Column("timezone", civicrm_text(8)),
    Column("name", civicrm_text(255)),
    _ref("master_id", "civicrm_address", ondelete="SET NULL"),
    Index("FK_civicrm_address_contact_id", "contact_id"),
    Index("index_city", "city"),
    **NUMBERED,
)

phone = Table(
    "civicrm_phone",
    METADATA,
    _id(),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE"),
    Column("location_type_id", row_id()),
    _flag("is_primary"),
    _flag("is_billing"),
    Column("mobile_provider_id", row_id()),
    Column("phone", civicrm_text(32)),
    Column("phone_ext", civicrm_text(16)),
    Column("phone_numeric", civicrm_text(32)),
    Column("phone_type_id", row_id()),
    Index("FK_civicrm_phone_contact_id", "contact_id"),
    Index("phone_numeric_index", "phone_numeric"),
    **NUMBERED,
)

note = Table(
    "civicrm_note",
    METADATA,
    _id(),
    Column("entity_table", code_column(64), nullable=False),
    Column("entity_id", row_id(), nullable=False),
    Column("note", civicrm_long_text()),
    _ref("contact_id", "civicrm_contact", ondelete="SET NULL"),  # the author
    Column("note_date", SiteTime(timestamp=True)),
    Column("created_date", SiteTime(timestamp=True)),
    Column("modified_date", SiteTime(timestamp=True)),
    Column("subject", civicrm_text(255)),
    Column("privacy", civicrm_text(255), nullable=False, server_default="0"),
    Index("index_entity", "entity_table", "entity_id"),
    **NUMBERED,
)

relationship_type = Table(
    "civicrm_relationship_type",
    METADATA,
    _id(),
    Column("name_a_b", civicrm_text(64), unique=True),
    Column("label_a_b", civicrm_text(64)),
    Column("name_b_a", civicrm_text(64), unique=True),
    Column("label_b_a", civicrm_text(64)),
    Column("description", civicrm_text(255)),
    Column("contact_type_a", code_column(12)),
    Column("contact_type_b", code_column(12)),
    Column("contact_sub_type_a", civicrm_text(64)),
    Column("contact_sub_type_b", civicrm_text(64)),
    _flag("is_reserved"),
    _flag("is_active", 1),
    **NUMBERED,
)

relationship = Table(
    "civicrm_relationship",
    METADATA,
    _id(),
    _ref("contact_id_a", "civicrm_contact", ondelete="CASCADE", nullable=False),
    _ref("contact_id_b", "civicrm_contact", ondelete="CASCADE", nullable=False),
    _ref("relationship_type_id", "civicrm_relationship_type", ondelete="CASCADE", nullable=False),
    Column("start_date", SiteDate()),
    Column("end_date", SiteDate()),
    _flag("is_active", 1),
    Column("description", civicrm_text(255)),
    Column("is_permission_a_b", row_id(), nullable=False, server_default=text("0")),
    Column("is_permission_b_a", row_id(), nullable=False, server_default=text("0")),
    Column("case_id", row_id()),
    Index("FK_civicrm_relationship_contact_id_a", "contact_id_a"),
    Index("FK_civicrm_relationship_contact_id_b", "contact_id_b"),
    **NUMBERED,
)

custom_group = Table(
    "civicrm_custom_group",
    METADATA,
    _id(),
    Column("name", civicrm_text(64), unique=True),
    Column("title", civicrm_text(64), nullable=False),
    Column("extends", civicrm_text(255), server_default="Contact"),
    Column("extends_entity_column_id", row_id()),
    Column("extends_entity_column_value", civicrm_text(255)),
    Column("style", civicrm_text(15)),
    _flag("collapse_display"),
    Column("help_pre", long_text()),  # HTML
    Column("help_post", long_text()),  # HTML
    Column("weight", signed(), nullable=False, server_default=text("1")),
    _flag("is_active", 1),
    Column("table_name", code_column(255)),
    _flag("is_multiple"),
    Column("min_multiple", row_id()),
    Column("max_multiple", row_id()),
    _flag("collapse_adv_display"),
    _ref("created_id", "civicrm_contact", ondelete="SET NULL"),
    Column("created_date", SiteTime()),
    _flag("is_reserved"),
    _flag("is_public", 1),
    Column("icon", civicrm_text(255)),
    UniqueConstraint("title", "extends", name="UI_title_extends"),
    **NUMBERED,
)

custom_field = Table(
    "civicrm_custom_field",
    METADATA,
    _id(),
    _ref("custom_group_id", "civicrm_custom_group", ondelete="CASCADE", nullable=False),
    Column("name", civicrm_text(64)),
    Column("label", civicrm_text(255), nullable=False),
    Column("data_type", code_column(16), nullable=False),
    Column("html_type", code_column(32), nullable=False),
    Column("default_value", civicrm_text(255)),
    _flag("is_required"),
    _flag("is_searchable"),
    _flag("is_search_range"),
    Column("weight", signed(), nullable=False, server_default=text("1")),
    Column("help_pre", long_text()),  # HTML
    Column("help_post", long_text()),  # HTML
    Column("attributes", civicrm_text(255)),
    Column("is_active", flag(), server_default=text("1")),
    _flag("is_view"),
    Column("options_per_line", row_id()),
    Column("text_length", row_id()),
    Column("start_date_years", signed()),
    Column("end_date_years", signed()),
    Column("date_format", civicrm_text(64)),
    Column("time_format", row_id()),
    Column("note_columns", row_id()),
    Column("note_rows", row_id()),
    Column("column_name", code_column(255)),
    _ref("option_group_id", "civicrm_option_group", ondelete="SET NULL"),
    Column("serialize", row_id(), nullable=False, server_default=text("0")),
    Column("filter", civicrm_text(255)),
    _flag("in_selector"),
    UniqueConstraint("label", "custom_group_id", name="UI_label_custom_group_id"),
    UniqueConstraint("name", "custom_group_id", name="UI_name_custom_group_id"),
    **NUMBERED,
)

group_contact_cache = Table(  # the members of smart groups, filled by CiviCRM; civicrm_group.cache_date says when
    "civicrm_group_contact_cache",
    METADATA,
    _id(),
    _ref("group_id", "civicrm_group", ondelete="CASCADE", nullable=False),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE", nullable=False),
    UniqueConstraint("contact_id", "group_id", name="UI_contact_group_cache"),
    **NUMBERED,
)

activity = Table(
    "civicrm_activity",
    METADATA,
    _id(),
    Column("source_record_id", row_id()),
    Column("activity_type_id", row_id(), nullable=False, server_default=text("1")),
    Column("subject", civicrm_text(255)),
    Column("activity_date_time", SiteTime()),
    Column("duration", row_id()),
    Column("location", civicrm_text(255)),
    Column("phone_number", civicrm_text(64)),
    Column("details", long_text()),  # HTML
    Column("status_id", row_id()),
    Column("priority_id", row_id()),
    _ref("parent_id", "civicrm_activity", ondelete="SET NULL"),
    _flag("is_test"),
    Column("medium_id", row_id()),
    _flag("is_auto"),
    _flag("is_current_revision", 1),
    Column("result", civicrm_text(255)),
    _flag("is_deleted"),
    Column("campaign_id", row_id()),
    Column("engagement_level", row_id()),
    Column("weight", signed()),
    _flag("is_star"),
    Column("created_date", SiteTime(timestamp=True)),
    Column("modified_date", SiteTime(timestamp=True)),
    Index("index_activity_type_id", "activity_type_id"),
    Index("index_activity_date_time", "activity_date_time"),
    **NUMBERED,
)

activity_contact = Table(
    "civicrm_activity_contact",
    METADATA,
    _id(),
    _ref("activity_id", "civicrm_activity", ondelete="CASCADE", nullable=False),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE", nullable=False),
    Column("record_type_id", row_id()),  # 1 assignee, 2 source, 3 target
    UniqueConstraint("contact_id", "activity_id", "record_type_id", name="UI_activity_contact"),
    Index("index_record_type", "activity_id", "record_type_id"),
    **NUMBERED,
)

# Ours: which contact belongs to a ``[user:NAME]`` of the settings. Kept apart from the contact, so that editing a
# contact can never make it stand for a user.
user = Table(
    "civiapi_user",
    METADATA,
    Column("name", code_column(190), primary_key=True),
    _ref("contact_id", "civicrm_contact", ondelete="CASCADE", nullable=False),
    **PLAIN,
)

# Ours: a random part of the key that signs tokens and sessions (``civiapi/store/signing.py``). No entity declares this
# table, so no API call can read it.
signing = Table(
    "civiapi_signing",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=False),
    Column("nonce", code_column(64), nullable=False),
    **PLAIN,
)

session_epoch = Table(  # ours: how often a contact has logged out; a session of an earlier epoch is over
    "civiapi_session_epoch",
    METADATA,
    Column("contact_id", row_id(), primary_key=True, autoincrement=False),
    Column("epoch", big_number(), nullable=False),
    **PLAIN,
)

imported = Table(  # ours: which row of which import became which row here (``civiapi/importer``)
    "civiapi_import",
    METADATA,
    Column("source", code_column(32), primary_key=True),  # digest of the imported folder's data
    Column("entity", code_column(32), primary_key=True),
    Column("old_id", code_column(32), primary_key=True),  # the row's id in the file, or a digest where it has none
    Column("digest", code_column(32), nullable=False),  # of what identifies the row
    Column("new_id", row_id(), nullable=False),  # 0: left out, because it belongs to a row deleted since
    Column("made", flag(), nullable=False),  # 1: the import made the row; 0: it was there
    Index("civiapi_import_row", "entity", "old_id"),
    **PLAIN,
)

alert = Table(  # ours: problems, open (``ended_ms`` 0) and over (``civiapi/alerts``); times in UTC milliseconds
    "civiapi_alert",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("code", code_column(190), nullable=False),
    Column("severity", code_column(16), nullable=False),
    Column("sentence", long_text(), nullable=False),
    Column("remedy", long_text(), nullable=False),
    Column("began_ms", big_number(), nullable=False),
    Column("ended_ms", big_number(), nullable=False),
    UniqueConstraint("code", "ended_ms", name="civiapi_alert_open"),
    **NUMBERED,
)

alert_message = Table(  # ours: messages for one channel each, sent or to be sent
    "civiapi_alert_message",
    METADATA,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("kind", code_column(16), nullable=False),
    Column("channel", code_column(16), nullable=False),
    Column("body", long_text(), nullable=False),
    Column("queued_ms", big_number(), nullable=False),
    Column("due_ms", big_number(), nullable=False),  # with each attempt: when the next one is made
    Column("attempts", row_id(), nullable=False),
    Column("sent_ms", big_number(), nullable=False),
    Column("error", long_text()),
    Index("civiapi_alert_message_due", "sent_ms", "due_ms"),
    **NUMBERED,
)

lease = Table(
    "civiapi_claim",
    METADATA,
    Column("name", code_column(64), primary_key=True),  # audience id, or "scheduler"
    Column("holder", code_column(64), nullable=False),
    Column("fence", big_number(), nullable=False),  # grows by one with every lease; checked at each commit
    Column("expires_ms", big_number(), nullable=False),  # UTC milliseconds since 1970
    **PLAIN,
)
