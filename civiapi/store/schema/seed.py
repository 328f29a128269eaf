"""The initial rows of a CiviCRM database (domain, location types, option lists) and the extension's job.

Only missing rows are added: none on a database that CiviCRM made.
"""

from sqlalchemy import ColumnElement, Connection, insert, select, update

from civiapi.store.schema.countries import COUNTRIES
from civiapi.store.schema.tables import (
    country,
    domain,
    job,
    location_type,
    option_group,
    option_value,
    relationship_type,
)

CIVICRM_VERSION = "5.75.1"  # the release whose behaviour is reproduced

LOCATION_TYPES = (("Home", "HOME", 1), ("Work", "WORK", 0), ("Main", "", 0), ("Other", "", 0), ("Billing", "", 0))

# group: (value, name, label)
OPTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "gender": (("1", "Female", "Female"), ("2", "Male", "Male"), ("3", "Other", "Other")),
    "individual_prefix": (("1", "Mrs.", "Mrs."), ("2", "Ms.", "Ms."), ("3", "Mr.", "Mr."), ("4", "Dr.", "Dr.")),
    "individual_suffix": (
        ("1", "Jr.", "Jr."),
        ("2", "Sr.", "Sr."),
        ("3", "II", "II"),
        ("4", "III", "III"),
        ("5", "IV", "IV"),
        ("6", "V", "V"),
        ("7", "VI", "VI"),
        ("8", "VII", "VII"),
    ),
    "preferred_communication_method": (
        ("1", "Phone", "Phone"),
        ("2", "Email", "Email"),
        ("3", "Postal Mail", "Postal Mail"),
        ("4", "SMS", "SMS"),
        ("5", "Fax", "Fax"),
    ),
    "communication_style": (("1", "formal", "Formal"), ("2", "familiar", "Familiar")),
    "group_type": (("1", "Access Control", "Access Control"), ("2", "Mailing List", "Mailing List")),
    "languages": (
        ("de_DE", "de_DE", "German"),
        ("en_AU", "en_AU", "English (Australia)"),
        ("en_CA", "en_CA", "English (Canada)"),
        ("en_GB", "en_GB", "English (United Kingdom)"),
        ("en_US", "en_US", "English (United States)"),
        ("es_ES", "es_ES", "Spanish; Castilian (Spain)"),
        ("fr_FR", "fr_FR", "French (France)"),
        ("nl_NL", "nl_NL", "Dutch (Netherlands)"),
    ),
}

PHONE_TYPES = tuple(
    (str(value), name, name) for value, name in enumerate(("Phone", "Mobile", "Fax", "Pager", "Voicemail"), 1)
)

ACTIVITY_TYPES = tuple(
    (str(value), name, name)
    for value, name in enumerate(("Meeting", "Phone Call", "Email", "Outbound SMS", "Event Registration"), 1)
)
ACTIVITY_STATUSES = (
    ("1", "Scheduled", "Scheduled"),
    ("2", "Completed", "Completed"),
    ("3", "Cancelled", "Cancelled"),
)

# a to b, b to a, types of a and of b (None: any)
RELATIONSHIP_TYPES: tuple[tuple[str, str, str | None, str | None], ...] = (
    ("Child of", "Parent of", "Individual", "Individual"),
    ("Spouse of", "Spouse of", "Individual", "Individual"),
    ("Partner of", "Partner of", "Individual", "Individual"),
    ("Sibling of", "Sibling of", "Individual", "Individual"),
    ("Employee of", "Employer of", "Individual", "Organization"),
    ("Volunteer for", "Volunteer is", "Individual", "Organization"),
    ("Head of Household for", "Head of Household is", "Individual", "Household"),
    ("Household Member of", "Household Member is", "Individual", "Household"),
)


_FORMAL = "Dear {contact.prefix_id:label} {contact.first_name} {contact.last_name}"
_SALUTATIONS = (
    ("1", "Dear {contact.first_name}", 1, 1),
    ("2", _FORMAL, 1, 0),
    ("3", "Dear {contact.prefix_id:label} {contact.last_name}", 1, 0),
    ("4", "Customized", 0, 0),
    ("5", "Dear {contact.household_name}", 2, 1),
)
_WHOLE_NAME = (
    "{contact.prefix_id:label}{ }{contact.first_name}{ }{contact.middle_name}{ }{contact.last_name}{ }"
    "{contact.suffix_id:label}"
)
# group: (value, template, filter: 1 Individual, 2 Household, 3 Organization, whether it is the default there)
GREETINGS: dict[str, tuple[tuple[str, str, int, int], ...]] = {
    "email_greeting": _SALUTATIONS,
    "postal_greeting": _SALUTATIONS,
    "addressee": (
        ("1", _WHOLE_NAME, 1, 1),
        ("2", "{contact.household_name}", 2, 1),
        ("3", "{contact.organization_name}", 3, 1),
        ("4", "Customized", 0, 0),
    ),
}


def seed(conn: Connection) -> None:
    """Add the initial rows where their tables are empty."""
    if conn.execute(select(domain.c.id).limit(1)).first() is None:
        conn.execute(insert(domain).values(id=1, name="Default Domain Name", version=CIVICRM_VERSION))
    if conn.execute(select(location_type.c.id).limit(1)).first() is None:
        conn.execute(
            insert(location_type),
            [
                {"name": name, "display_name": name, "vcard_name": vcard or None, "is_default": default}
                for name, vcard, default in LOCATION_TYPES
            ],
        )
    if conn.execute(select(option_group.c.id).limit(1)).first() is None:
        for name, rows in OPTIONS.items():
            _seed_options(conn, name, rows)


def seed_greetings(conn: Connection) -> None:
    """Add the greetings that are not there, and make the formal style the default where there is none."""
    known = set(conn.execute(select(option_group.c.name)).scalars())
    for name, rows in GREETINGS.items():
        if name not in known:
            _seed_options(conn, name, tuple((value, label, label) for value, label, _, _ in rows))
            for value, _, filtered, is_default in rows:
                of_value = _in_group(name), option_value.c.value == value
                conn.execute(update(option_value).where(*of_value).values(filter=filtered, is_default=is_default))
    styles = _in_group("communication_style")
    if conn.execute(select(option_value.c.id).where(styles, option_value.c.is_default == 1).limit(1)).first() is None:
        conn.execute(update(option_value).where(styles, option_value.c.name == "formal").values(is_default=1))


def _in_group(name: str) -> ColumnElement[bool]:
    return option_value.c.option_group_id == (
        select(option_group.c.id).where(option_group.c.name == name).scalar_subquery()
    )


def seed_places_and_relations(conn: Connection) -> None:
    """Add countries, phone types and kinds of relationships where there are none."""
    if conn.execute(select(country.c.id).limit(1)).first() is None:
        conn.execute(insert(country), [{"iso_code": code, "name": name} for code, name in COUNTRIES])
    if conn.execute(select(option_group.c.id).where(option_group.c.name == "phone_type")).first() is None:
        _seed_options(conn, "phone_type", PHONE_TYPES)
    if conn.execute(select(relationship_type.c.id).limit(1)).first() is None:
        names = ("name_a_b", "name_b_a", "contact_type_a", "contact_type_b")
        rows = [dict(zip(names, one, strict=True)) for one in RELATIONSHIP_TYPES]
        conn.execute(
            insert(relationship_type),
            [{**row, "label_a_b": row["name_a_b"], "label_b_a": row["name_b_a"], "is_reserved": 0} for row in rows],
        )


def seed_activities(conn: Connection) -> None:
    """Add the types and statuses of activities where there are none."""
    known = set(conn.execute(select(option_group.c.name)).scalars())
    if "activity_type" not in known:
        _seed_options(conn, "activity_type", ACTIVITY_TYPES)
    if "activity_status" not in known:
        _seed_options(conn, "activity_status", ACTIVITY_STATUSES)
        scheduled = _in_group("activity_status"), option_value.c.value == "1"
        conn.execute(update(option_value).where(*scheduled).values(is_default=1))


def seed_job(conn: Connection) -> None:
    """Add the job that syncs every hour, unless a job calls that action already."""
    _seed_job(conn, "Fetchandreconcile", "Call Mailchimpsync.Fetchandreconcile API", "Hourly", is_active=1)


def seed_campaign_job(conn: Connection) -> None:
    """Add the job that imports campaigns every day, for somebody to enable."""
    _seed_job(conn, "Importcampaigns", "Import Mailchimp campaigns", "Daily", is_active=0)


def _seed_job(conn: Connection, action: str, name: str, frequency: str, *, is_active: int) -> None:
    call = {"api_entity": "Mailchimpsync", "api_action": action}
    known = select(job.c.id).where(*(job.c[column] == value for column, value in call.items()))
    if conn.execute(known.limit(1)).first() is not None:
        return
    site = conn.execute(select(domain.c.id).order_by(domain.c.id).limit(1)).scalar_one()
    given = {"description": name, "parameters": "", "is_active": is_active}
    conn.execute(insert(job).values(domain_id=site, run_frequency=frequency, name=name, **given, **call))


def _seed_options(conn: Connection, name: str, rows: tuple[tuple[str, str, str], ...]) -> None:
    key = conn.execute(insert(option_group).values(name=name, title=name)).inserted_primary_key
    group_id = key[0] if key else None
    conn.execute(
        insert(option_value),
        [
            {"option_group_id": group_id, "value": value, "name": option, "label": label, "weight": weight}
            for weight, (value, option, label) in enumerate(rows, 1)
        ],
    )
