"""Databases of other CiviCRM versions, made from that of 5.75 (``civicrm_5_75.sql``).

Columns are taken away or added as far as versions are known to differ, tables have other character sets, and there is
what years leave behind: zero dates, rows that refer to nothing, data that cannot be read.
"""

import re
from collections.abc import Iterator

from tests.support import civicrm
from tests.support.civicrm import NEWS

TABLES = re.findall(r"CREATE TABLE `(\w+)`", civicrm.TABLES.read_text("utf-8"))
ZERO = "0000-00-00 00:00:00"
LEFTOVERS = (
    "SET sql_mode = '';",  # as a server had when these rows were written
    f"UPDATE civicrm_subscription_history SET date = '{ZERO}' WHERE contact_id = 6;",
    f"UPDATE civicrm_job SET last_run = '{ZERO}', scheduled_run_date = '{ZERO}';",
    f"UPDATE civicrm_contact SET created_date = '{ZERO}', birth_date = '0000-00-00' WHERE id = 6;",
    f"UPDATE civicrm_email SET hold_date = '{ZERO}', reset_date = '{ZERO}' WHERE contact_id = 6;",
    "INSERT INTO civicrm_email (email) VALUES ('nobodys@example.org'), (NULL);",
    "UPDATE civicrm_mailchimpsync_cache SET mailchimp_data = 'a:2:{s:6:', civicrm_data = 'x' WHERE id = 2;",
    "INSERT INTO civicrm_subscription_history (contact_id, group_id, date, method, status) "
    f"VALUES (6, {NEWS}, '{ZERO}', NULL, NULL);",
    f"UPDATE civicrm_mailchimpsync_cache SET mailchimp_updated = '{ZERO}' WHERE id = 1;",
)


def without(**columns: str) -> tuple[str, ...]:
    """Statements that take columns away: table (without ``civicrm_``) = names with commas."""
    return tuple(
        f"ALTER TABLE civicrm_{table} " + ", ".join(f"DROP COLUMN {name}" for name in names.split(",")) + ";"
        for table, names in columns.items()
    )


def in_charset(charset: str, collation: str) -> tuple[str, ...]:
    """Statements that convert every table."""
    return tuple(f"ALTER TABLE {name} CONVERT TO CHARACTER SET {charset} COLLATE {collation};" for name in TABLES)


TEXTS = {
    "group": ("title", "frontend_title", "description", "frontend_description"),
    "option_group": ("title", "description"),
    "option_value": ("label", "description"),
    "location_type": ("display_name",),
    "relationship_type": ("label_a_b", "label_b_a", "description"),
    "custom_group": ("title", "help_pre", "help_post"),
    "custom_field": ("label", "help_pre", "help_post"),
}
"""The columns that a CiviCRM in several languages has for each of them, by table without ``civicrm_``."""


def in_languages(default: str, other: str) -> Iterator[str]:
    """Statements that give each text a column a language, as CiviCRM does: the texts that are there are *default*'s."""
    for name, texts in TEXTS.items():
        table, types = f"civicrm_{name}", columns_of(f"civicrm_{name}")
        for text in texts:
            kind = types[text]
            yield f"ALTER TABLE {table} CHANGE {text} {text}_{default} {kind}, ADD COLUMN {text}_{other} {kind};"
            yield f"UPDATE {table} SET {text}_{other} = CONCAT('({other}) ', {text}_{default});"
        for language in (default, other):
            shown = ", ".join(f"{one}_{language} AS `{one}`" if one in texts else f"`{one}`" for one in types)
            yield f"CREATE VIEW {table}_{language} AS SELECT {shown} FROM {table};"
        filled = (f"NEW.{one}_{a} = IFNULL(NEW.{one}_{a}, NEW.{one}_{b})"
                  for one in texts for a, b in ((default, other), (other, default)))  # fmt: skip
        yield f"CREATE TRIGGER {table}_before_insert BEFORE INSERT ON {table} FOR EACH ROW SET {', '.join(filled)};"
    yield f"UPDATE civicrm_domain SET locales = CONCAT('{other}', CHAR(1), '{default}');"
    yield "DELETE FROM civicrm_setting WHERE name = 'lcMessages';"
    setting = f"'lcMessages', 's:5:\"{default}\";', 1, 1"
    yield f"INSERT INTO civicrm_setting (name, value, domain_id, is_domain) VALUES ({setting});"


def columns_of(table: str) -> dict[str, str]:
    """The columns of a table of 5.75 with their types."""
    inside = civicrm.TABLES.read_text("utf-8").split(f"CREATE TABLE `{table}` (")[1].split("\n)")[0]
    return dict(re.findall(r"^ +`?([a-z]\w+)`? ([a-zA-Z]+(?:\(\d+\))?)", inside, re.MULTILINE))


VERSIONS: dict[str, tuple[str, ...]] = {
    "5.39": (
        *LEFTOVERS,
        *without(job="last_run_end", tag="label", group="frontend_title,frontend_description"),
        *in_charset("utf8mb3", "utf8mb3_unicode_ci"),
    ),
    "5.57": (
        *LEFTOVERS,
        *without(job="last_run_end", tag="label"),
        "ALTER TABLE civicrm_email CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;",
        "ALTER TABLE civicrm_mailchimpsync_status CONVERT TO CHARACTER SET latin1;",
    ),
    "5.69": (*LEFTOVERS, *without(job="last_run_end"), *in_charset("utf8mb4", "utf8mb4_unicode_520_ci")),
    "5.75": LEFTOVERS,
    "5.75 in two languages": (*LEFTOVERS, *in_languages("fr_FR", "en_US")),
    "today": (
        *LEFTOVERS,
        *without(contact="preferred_mail_format"),
        "ALTER TABLE civicrm_contact ADD COLUMN phonetic_first_name varchar(64) NULL;",
        "ALTER TABLE civicrm_group ADD COLUMN frontend_weight int NOT NULL DEFAULT 0;",
    ),
}
"""Statements that turn a database of 5.75 into one of another version."""

ABSENT = {
    "5.39": {"Job": ["last_run_end"], "Tag": ["label"], "Group": ["frontend_title", "frontend_description"]},
    "5.57": {"Job": ["last_run_end"], "Tag": ["label"]},
    "5.69": {"Job": ["last_run_end"]},
    "5.75": {},
    "5.75 in two languages": {},
    "today": {"Contact": ["preferred_mail_format"]},
}
"""The fields that an API on each of them does not have."""
