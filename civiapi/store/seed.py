"""The rows that every CiviCRM starts with: its domain, location types, option lists; and the extension's job.

Only what is missing is added: on a database that CiviCRM made, nothing. No contacts; those are made by whoever needs
them.
"""

from sqlalchemy import Connection, func, insert, select

from civiapi.store.tables import domain, job, location_type, option_group, option_value

CIVICRM_VERSION = "5.75.1"  # the release whose behaviour we answer with

LOCATION_TYPES = (
    ("Home", "HOME", 1),
    ("Work", "WORK", 0),
    ("Main", "", 0),
    ("Other", "", 0),
    ("Billing", "", 0),
)

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


def seed(conn: Connection) -> None:
    """Add the first rows where their tables are empty."""
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


def seed_job(conn: Connection) -> None:
    """Add the job that syncs every hour, unless a job calls that action already."""
    call = {"api_entity": "Mailchimpsync", "api_action": "Fetchandreconcile"}
    known = select(job.c.id).where(*(func.lower(job.c[name]) == value.lower() for name, value in call.items()))
    if conn.execute(known.limit(1)).first() is not None:
        return
    words = "Call Mailchimpsync.Fetchandreconcile API"
    site = conn.execute(select(domain.c.id).order_by(domain.c.id).limit(1)).scalar_one()
    conn.execute(
        insert(job).values(
            domain_id=site, run_frequency="Hourly", name=words, description=words, parameters="", is_active=1, **call
        )
    )


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
