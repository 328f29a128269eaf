"""A CiviCRM in several languages: such texts are in a column for each (``title_fr_FR``) of their table, which has none
with the plain name; for each table and language there is a view with the plain names (``civicrm_group_fr_FR``).

Statements name the views of the site's language in place of these tables. CiviCRM's triggers give new rows their texts
in the other languages.
"""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Dialect

_VIEWS = "_civiapi_views"
_LOCALE = r"[a-z]{2,3}_[A-Z]{2}"
_NAME = re.compile(r"(civicrm_\w+)_([a-z]{2,3}_[a-z]{2})", re.IGNORECASE)  # a server may have names in lower case


def find_views(cursor: Any) -> dict[str, str]:
    """The view to be named in place of each such table, on a connection of MariaDB's driver; empty for one language.

    The site's language is that of the setting ``lcMessages``; else the first of ``civicrm_domain.locales``, which says
    whether there are several at all: views may be left of a time when there were.
    """
    cursor.execute(
        "SELECT table_name FROM information_schema.views WHERE table_schema = DATABASE() "
        "AND table_name LIKE 'civicrm\\_%'"
    )
    found = [match for (name,) in cursor.fetchall() if (match := _NAME.fullmatch(name))]
    if not found:
        return {}
    cursor.execute("SELECT locales FROM civicrm_domain WHERE locales IS NOT NULL ORDER BY id")
    locales = " ".join(str(text) for (text,) in cursor.fetchall())
    cursor.execute(
        "SELECT value FROM civicrm_setting WHERE name = 'lcMessages' AND contact_id IS NULL ORDER BY domain_id, id"
    )
    said = " ".join(str(text) for (text,) in cursor.fetchall())
    there = {match[2].lower() for match in found}
    known = [one for one in re.findall(_LOCALE, locales) if one.lower() in there]
    language = next((one for one in re.findall(_LOCALE, said) if one in known), known[0] if known else "")
    return {match[1]: match[0] for match in found if match[2].lower() == language.lower()}


def use_views(dialect: Dialect, connection: Any) -> None:
    """Have all statements that are compiled for *dialect* from now on name views in place of their tables.

    They are looked for once, on the first *connection* of MariaDB's driver that answers.
    """
    if hasattr(dialect, _VIEWS):
        return
    cursor = connection.cursor()
    views = find_views(cursor)
    cursor.close()
    connection.rollback()
    preparer: Any = dialect.identifier_preparer
    plain = preparer.quote

    def quote(name: str, *more: Any) -> str:
        return str(plain(views.get(name, name), *more))

    setattr(dialect, _VIEWS, views)
    if views:
        preparer.quote = quote


def views_of(dialect: Dialect) -> Mapping[str, str]:
    """The views that stand for tables; none on SQLite and for one language."""
    return getattr(dialect, _VIEWS, {})
