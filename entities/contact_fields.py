"""What a contact consists of: the fields of Contact, and what ``get`` shows of them when nothing else is asked for."""

from civiapi.spec import BOOLEAN, DATE, INT, TEXT, TIMESTAMP, Field, FixedOptions, Option, OptionGroup

INDIVIDUAL, HOUSEHOLD, ORGANIZATION = "Individual", "Household", "Organization"
CONTACT_TYPES = FixedOptions(tuple(Option(word, word, word) for word in (HOUSEHOLD, INDIVIDUAL, ORGANIZATION)))
MAIL_FORMATS = FixedOptions.words("Text", "HTML", "Both")
GENDER = OptionGroup("gender")
PREFIX = OptionGroup("individual_prefix")
SUFFIX = OptionGroup("individual_suffix")
STYLE = OptionGroup("communication_style")
LANGUAGE = OptionGroup("languages", key="name")
_PREFIX_NAMES = ("individual_prefix", "individual_prefix_id")
_SUFFIX_NAMES = ("individual_suffix", "individual_suffix_id")


def _flag(name: str, title: str) -> Field:
    return Field(name, BOOLEAN, title=title, default=0)


FIELDS: tuple[Field, ...] = (
    Field("id", INT, title="Contact ID", keeps=False),
    Field("contact_type", title="Contact Type", required_by={"create"}, max_length=64, options=CONTACT_TYPES),
    Field("contact_sub_type", title="Contact Subtype", max_length=255, multiple=True),
    _flag("do_not_email", "Do Not Email"),
    _flag("do_not_phone", "Do Not Phone"),
    _flag("do_not_mail", "Do Not Mail"),
    _flag("do_not_sms", "Do Not Sms"),
    _flag("do_not_trade", "Do Not Trade"),
    _flag("is_opt_out", "No Bulk Emails (User Opt Out)"),
    Field("legal_identifier", title="Legal Identifier", max_length=32),
    Field("external_identifier", title="External Identifier", max_length=64),
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
    Field("preferred_language", title="Preferred Language", max_length=5, options=LANGUAGE),
    Field("preferred_mail_format", title="Preferred Mail Format", max_length=8, options=MAIL_FORMATS, default="Both"),
    Field("hash", title="Contact Hash", max_length=32),
    Field("api_key", title="API Key", max_length=32),
    Field("source", title="Contact Source", max_length=255, unique_name="contact_source"),
    Field("first_name", title="First Name", max_length=64),
    Field("middle_name", title="Middle Name", max_length=64),
    Field("last_name", title="Last Name", max_length=64),
    Field(
        "prefix_id",
        INT,
        title="Individual Prefix",
        options=PREFIX,
        aliases=_PREFIX_NAMES,
    ),
    Field(
        "suffix_id",
        INT,
        title="Individual Suffix",
        options=SUFFIX,
        aliases=_SUFFIX_NAMES,
    ),
    Field("formal_title", title="Formal Title", max_length=64),
    Field("communication_style_id", INT, title="Communication Style", options=STYLE),
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
    Field("organization_name", title="Organization Name", max_length=128),
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
    ),
    Field("created_date", TIMESTAMP, title="Created Date", keeps=False),
    Field("modified_date", TIMESTAMP, title="Modified Date", keeps=False),
    Field(
        "email",
        title="Email",
        max_length=254,
        blocks=True,
        description="Primary address.",
    ),
    Field("current_employer", title="Current Employer", max_length=128, description="Name of the employer."),
    Field(
        "dupe_check",
        BOOLEAN,
        title="Check for Duplicates",
        description="Refuse a contact that is there.",
    ),
    Field("skip_greeting_processing", BOOLEAN, title="Skip Greeting Processing"),
    Field("home_url", title="Home URL", description="Taken and not kept."),
)

# What get answers with when no columns are asked for, beyond what is always there (id, contact_id).
DEFAULT_COLUMNS = (
    "contact_type", "contact_sub_type", "sort_name", "display_name", "do_not_email", "do_not_phone", "do_not_mail",
    "do_not_sms", "do_not_trade", "is_opt_out", "legal_identifier", "external_identifier", "nick_name", "legal_name",
    "image_URL", "preferred_communication_method", "preferred_language", "preferred_mail_format", "first_name",
    "middle_name", "last_name", "prefix_id", "suffix_id", "formal_title", "communication_style_id", "job_title",
    "gender_id", "birth_date", "is_deceased", "deceased_date", "household_name", "organization_name", "sic_code",
    "contact_is_deleted", "current_employer", "email_id", "email", "on_hold", "languages", "individual_prefix",
    "individual_suffix", "communication_style", "gender",
)  # fmt: skip

# Kept in tables that this program does not have: always there, always empty.
BLANKS = (
    "address_id", "street_address", "supplemental_address_1", "supplemental_address_2", "supplemental_address_3",
    "city", "postal_code", "postal_code_suffix", "geo_code_1", "geo_code_2", "state_province_id", "country_id",
    "phone_id", "phone_type_id", "phone", "im_id", "provider_id", "im", "worldregion_id", "world_region",
    "state_province_name", "state_province", "country",
)  # fmt: skip

# A coded column in words: what get calls it, the column, the list.
LABELS = {
    "gender": ("gender_id", GENDER),
    "individual_prefix": ("prefix_id", PREFIX),
    "individual_suffix": ("suffix_id", SUFFIX),
    "communication_style": ("communication_style_id", STYLE),
    "languages": ("preferred_language", LANGUAGE),
}

# Asking for one of these brings the others along.
COMPANIONS = {"email": ("email_id",), "phone": ("phone_id", "phone_type_id"), "im": ("im_id", "provider_id")}
