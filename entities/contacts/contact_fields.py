"""The fields of Contact, and those that ``get`` answers by default."""

from dataclasses import replace

from civiapi.api.declaration.fields import (
    BOOLEAN,
    DATE,
    INT,
    TEXT,
    TIMESTAMP,
    Field,
    FixedOptions,
    Guard,
    Option,
    OptionGroup,
)
from entities.contacts.locations.address import ADDRESS
from entities.contacts.locations.email import ON_HOLD
from entities.contacts.locations.phone import PHONE_TYPE

INDIVIDUAL, HOUSEHOLD, ORGANIZATION = "Individual", "Household", "Organization"
CONTACT_TYPES = FixedOptions(tuple(Option(name, name, name) for name in (HOUSEHOLD, INDIVIDUAL, ORGANIZATION)))
MAIL_FORMATS = FixedOptions.named("Text", "HTML", "Both")
GENDER = OptionGroup("gender")
PREFIX = OptionGroup("individual_prefix")
SUFFIX = OptionGroup("individual_suffix")
STYLE = OptionGroup("communication_style")
LANGUAGE = OptionGroup("languages", key="name")
_PREFIX_NAMES = ("individual_prefix", "individual_prefix_id")
_SUFFIX_NAMES = ("individual_suffix", "individual_suffix_id")

# An API key lets its holder act as its contact; a checksum made of a hash opens CiviCRM's forms as its contact.
_KEYS = ("edit api keys", "administer CiviCRM")
API_KEY = Guard(read=_KEYS, write=_KEYS, own=("edit own api keys",))
HASH = Guard(read=("administer CiviCRM",), write=("administer CiviCRM",))
# What a contact is, and by which number others know it, is not for the contact to change.
IDENTITY = Guard(change=("edit all contacts",))


_LISTED = "One or several {} are found, by id, name or title."


def _flag(name: str, title: str) -> Field:
    return Field(name, BOOLEAN, title=title, default=0)


_GET, _CREATE = {"get"}, {"create"}
OF_ADDRESS = (
    "street_address", "street_number", "street_name", "street_unit", "supplemental_address_1", "supplemental_address_2",
    "supplemental_address_3", "city", "postal_code", "postal_code_suffix", "geo_code_1", "geo_code_2", "county_id",
    "state_province_id", "country_id",
)  # fmt: skip

# What belongs to a contact and is in other tables: filters and columns of get.
_ELSEWHERE: tuple[Field, ...] = (
    Field("email_id", INT, title="Email ID", description="Of the primary address.", only=_GET),
    Field("on_hold", INT, title="On Hold", description="Of the primary address.", options=ON_HOLD, only=_GET),
    Field("address_id", INT, title="Address ID", description="Of the primary postal address.", only=_GET),
    *(replace(ADDRESS.by_name[name], aliases=(), only=_GET) for name in OF_ADDRESS),
    Field("country", title="Country", description="Name or code.", only=_GET),
    Field("state_province", title="State/Province", description="Name or abbreviation.", only=_GET),
    Field("state_province_name", title="State/Province Name", only=_GET),
    Field("phone_id", INT, title="Phone ID", description="Of the primary number.", only=_GET),
    Field("phone", title="Phone", description="The primary number.", only=_GET),
    Field("phone_type_id", INT, title="Phone Type", options=PHONE_TYPE, only=_GET),
    Field(
        "group",
        title="Group",
        description=_LISTED.format("groups, whose members"),
        accepts_nested=True,
        fk="Group",
        only=_GET,
    ),
    Field(
        "tag", title="Tag", description=_LISTED.format("tags, whose contacts"), accepts_nested=True, fk="Tag", only=_GET
    ),
    Field("uf_user", BOOLEAN, title="Has a User Account", only=_GET),
)

FIELDS: tuple[Field, ...] = (
    Field("id", INT, title="Contact ID", writable=False),
    Field(
        "contact_type",
        title="Contact Type",
        required_by={"create"},
        max_length=64,
        options=CONTACT_TYPES,
        guard=IDENTITY,
    ),
    Field("contact_sub_type", title="Contact Subtype", max_length=255, multiple=True),
    _flag("do_not_email", "Do Not Email"),
    _flag("do_not_phone", "Do Not Phone"),
    _flag("do_not_mail", "Do Not Mail"),
    _flag("do_not_sms", "Do Not Sms"),
    _flag("do_not_trade", "Do Not Trade"),
    _flag("is_opt_out", "No Bulk Emails (User Opt Out)"),
    Field("legal_identifier", title="Legal Identifier", max_length=32),
    Field("external_identifier", title="External Identifier", max_length=64, guard=IDENTITY),
    Field("sort_name", title="Sort Name", max_length=128),
    Field("display_name", title="Display Name", max_length=128),
    Field("nick_name", title="Nickname", max_length=128),
    Field("legal_name", title="Legal Name", max_length=128),
    Field("image_URL", TEXT, title="Image Url"),
    Field(
        "preferred_communication_method",
        title="Preferred Communication Method",
        max_length=255,
        options=OptionGroup("preferred_communication_method"),
        multiple=True,
    ),
    Field("preferred_language", title="Preferred Language", max_length=5, options=LANGUAGE, aliases=("languages",)),
    Field("preferred_mail_format", title="Preferred Mail Format", max_length=8, options=MAIL_FORMATS, default="Both"),
    Field("hash", title="Contact Hash", max_length=32, guard=HASH),
    Field("api_key", title="API Key", max_length=32, guard=API_KEY),
    Field("source", title="Contact Source", max_length=255, unique_name="contact_source"),
    Field("first_name", title="First Name", max_length=64),
    Field("middle_name", title="Middle Name", max_length=64),
    Field("last_name", title="Last Name", max_length=64),
    Field("prefix_id", INT, title="Individual Prefix", options=PREFIX, aliases=_PREFIX_NAMES),
    Field("suffix_id", INT, title="Individual Suffix", options=SUFFIX, aliases=_SUFFIX_NAMES),
    Field("formal_title", title="Formal Title", max_length=64),
    Field("communication_style_id", INT, title="Communication Style", options=STYLE, aliases=("communication_style",)),
    Field("email_greeting_id", INT, title="Email Greeting ID"),
    Field("email_greeting_custom", title="Email Greeting Custom", max_length=128),
    Field("email_greeting_display", title="Email Greeting", max_length=255),
    Field("postal_greeting_id", INT, title="Postal Greeting ID"),
    Field("postal_greeting_custom", title="Postal Greeting Custom", max_length=128),
    Field("postal_greeting_display", title="Postal Greeting", max_length=255),
    Field("addressee_id", INT, title="Addressee ID"),
    Field("addressee_custom", title="Addressee Custom", max_length=128),
    Field("addressee_display", title="Addressee", max_length=255),
    Field("job_title", title="Job Title", max_length=255),
    Field("gender_id", INT, title="Gender ID", options=GENDER, aliases=("gender",)),
    Field("birth_date", DATE, title="Birth Date"),
    _flag("is_deceased", "Deceased"),
    Field("deceased_date", DATE, title="Deceased Date"),
    Field("household_name", title="Household Name", max_length=128),
    Field("primary_contact_id", INT, title="Household Primary Contact ID", fk="Contact"),
    Field("organization_name", title="Organization Name", max_length=128, copied_from="employer_id"),
    Field("sic_code", title="Sic Code", max_length=8),
    Field("user_unique_id", title="Unique ID (OpenID)", max_length=255),
    Field("employer_id", INT, title="Current Employer ID", fk="Contact", unique_name="current_employer_id"),
    Field(
        "is_deleted",
        BOOLEAN,
        title="Contact is in Trash",
        default=0,
        default_by={"get": 0},
        unique_name="contact_is_deleted",
        guard=Guard(change=("delete contacts",)),
    ),
    Field("created_date", TIMESTAMP, title="Created Date", writable=False),
    Field("modified_date", TIMESTAMP, title="Modified Date", writable=False),
    Field("email", title="Email", max_length=254, accepts_nested=True, description="Primary address."),
    Field("current_employer", title="Current Employer", max_length=128, description="Name of the employer."),
    Field(
        "dupe_check",
        BOOLEAN,
        title="Check for Duplicates",
        description="Refuse a contact that is there.",
        only=_CREATE,
    ),
    Field("skip_greeting_processing", BOOLEAN, title="Skip Greeting Processing", only=_CREATE),
    Field("home_url", title="Home URL", description="Taken and not kept.", only=_CREATE),
    *_ELSEWHERE,
)

# Filters of CiviCRM's search that this program does not have (``activity_*``: all that begin so).
KNOWN_ELSEWHERE = frozenset({
    "activity_*", "case_*", "contribution_*", "event_*", "grant_*", "mailing_*", "member_*", "membership_*",
    "participant_*", "pledge_*", "relation_*", "relationship_*", "prox_*", "log_date*", "modified_date_*",
    "created_date_*", "deceased_date_*", "birth_date_relative", "age_*", "changed_by", "county", "im", "im_id", "im_*",
    "provider_id", "openid", "location_type", "location_type_id", "location_type_name", "worldregion_id",
    "world_region", "worldregion", "url", "website*", "note", "note_*", "contact_tags", "tag_*", "tags", "groups",
    "all_tag_types", "savedSearchID", "privacy*", "uf_id", "uf_name", "master_id", "address_name", "phone_numeric",
    "phone_ext", "is_bulkmail", "signature_text", "signature_html", "phone_location_type*", "custom_group",
    "deleted_contacts", "addressee", "email_greeting", "postal_greeting",
})  # fmt: skip

# The columns that get answers by default, in addition to id and contact_id.
DEFAULT_COLUMNS = (
    "contact_type", "contact_sub_type", "sort_name", "display_name", "do_not_email", "do_not_phone", "do_not_mail",
    "do_not_sms", "do_not_trade", "is_opt_out", "legal_identifier", "external_identifier", "nick_name", "legal_name",
    "image_URL", "preferred_communication_method", "preferred_language", "preferred_mail_format", "first_name",
    "middle_name", "last_name", "prefix_id", "suffix_id", "formal_title", "communication_style_id", "job_title",
    "gender_id", "birth_date", "is_deceased", "deceased_date", "household_name", "organization_name", "sic_code",
    "contact_is_deleted", "current_employer", "email_id", "email", "on_hold", "languages", "individual_prefix",
    "individual_suffix", "communication_style", "gender", "phone_id", "phone_type_id", "phone", "address_id",
    "street_address", "supplemental_address_1", "supplemental_address_2", "supplemental_address_3", "city",
    "postal_code", "postal_code_suffix", "geo_code_1", "geo_code_2", "state_province_id", "country_id",
    "state_province_name", "state_province", "country",
)  # fmt: skip

# Columns of tables that this program does not have: always empty.
BLANKS = ("im_id", "provider_id", "im", "worldregion_id", "world_region")

# The labels of coded columns: the name in get, the column, the list.
LABELS = {
    "gender": ("gender_id", GENDER),
    "individual_prefix": ("prefix_id", PREFIX),
    "individual_suffix": ("suffix_id", SUFFIX),
    "communication_style": ("communication_style_id", STYLE),
    "languages": ("preferred_language", LANGUAGE),
}

# Asking for one of these brings the others along.
GROUPS, TAGS = ("group", "groups"), ("tag", "tags")
"""The names by which get answers the titles of groups and the names of tags, comma-separated."""

COMPANIONS = {"email": ("email_id",), "phone": ("phone_id", "phone_type_id"), "im": ("im_id", "provider_id")}
