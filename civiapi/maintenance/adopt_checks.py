"""What a database that CiviCRM made has to be checked for before civiapi works on it; reads only.

Columns that its version lacks, rights of the database's user, character sets, the time zone that its rows were written
in, and who has an API key.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Set
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select

from civiapi.auth.authenticator import KEY_HOLDER_PERMISSIONS
from civiapi.settings import UserSettings
from civiapi.store.clock import SITE_FORMAT, SiteClock
from civiapi.store.databases import dialect, expressions, languages
from civiapi.store.schema.live_columns import absent_columns, demanded_columns
from civiapi.store.schema.tables import METADATA, contact, email, group, group_contact, subscription_history, uf_match
from sync.reports.checks import Finding, Severity, check
from sync.store.tables import batch, cache, status, update

QUARTER = timedelta(minutes=15)
MAX_ROWS = 500
MIN_EVIDENCE = 2
"""Rows that must agree on an offset before it is believed."""

NEEDED = {
    contact.name: {"contact_type", "display_name", "sort_name", "first_name", "last_name", "hash", "is_deleted"}
    | {"do_not_email", "is_opt_out", "is_deceased", "created_date", "modified_date", "api_key"},
    email.name: {"contact_id", "email", "is_primary", "is_bulkmail", "on_hold", "hold_date", "location_type_id"},
    group.name: {"title", "is_active", "saved_search_id"},
    group_contact.name: {"contact_id", "group_id", "status"},
    subscription_history.name: {"contact_id", "group_id", "date", "method", "status"},
    **{table.name: {column.name for column in table.c} for table in (batch, cache, status, update)},
}
"""The columns that a sync cannot do without."""

_RIGHTS_NEEDED = {
    group.name: {"SELECT"},
    **{one.name: {"SELECT", "INSERT", "UPDATE"} for one in (contact, email, group_contact, subscription_history)},
    **{one.name: {"SELECT", "INSERT", "UPDATE", "DELETE"} for one in (batch, cache, status, update)},
}
"""What a sync cannot do without on each of these tables."""


def columns(conn: Connection) -> Iterator[Finding]:
    """The columns that this version of CiviCRM does not have, and those that civiapi does not know and must fill."""
    for table, demanded in sorted(demanded_columns(conn).items()):
        named = ", ".join(f"{table}.{name}" for name in sorted(demanded))
        sentence = f"New rows need a value for {named}, which civiapi does not know: it makes none."
        stops = table in NEEDED
        remedy = "A sync makes such rows: give the column a default, or use a civiapi that knows it." if stops else ""
        yield Finding(f"demanded:{table}", Severity.ERROR if stops else Severity.INFO, sentence, remedy)
    for table, absent in sorted(absent_columns(conn).items()):
        for name in sorted(absent):
            column = f"{table}.{name}"
            if name in NEEDED.get(table, set()) | {"id"}:
                remedy = "A sync needs it: upgrade CiviCRM and its extension first."
                yield Finding(f"column:{column}", Severity.ERROR, f"Column {column} is missing.", remedy)
            elif not table.startswith("civiapi_"):
                sentence = f"This CiviCRM has no {column}; the API does not have the field."
                yield Finding(f"column:{column}", Severity.INFO, sentence)


def rights(conn: Connection, there: Set[str]) -> Iterator[Finding]:
    """The tables of *there* on which the database's user may not do all that a sync or the API does."""
    for name, table in sorted(METADATA.tables.items()):
        lacking = dialect.lacking_rights(conn, table) if name in there else []
        if lacking:
            stops = not _RIGHTS_NEEDED.get(name, set()).isdisjoint(lacking)
            sentence = f"The database's user lacks the right {', '.join(lacking)} on {name}."
            use = "A sync needs it" if stops else "Calls of the API that need it will fail"
            remedy = f"{use}: GRANT {', '.join(lacking)} ON {name} to that user."
            yield Finding(f"rights:{name}", Severity.ERROR if stops else Severity.NOTICE, sentence, remedy)


def language(conn: Connection) -> Iterator[Finding]:
    """Of a CiviCRM in several languages, whose texts civiapi reads and writes."""
    if views := languages.views_of(conn.dialect):
        table, view = next(iter(views.items()))
        name = view.removeprefix(f"{table}_")
        sentence = f"This CiviCRM is in several languages; civiapi reads and writes its texts in {name}."
        yield Finding("languages", Severity.OK, sentence)


def character_sets(conn: Connection) -> Iterator[Finding]:
    """Whether texts are in utf8mb4, and whether all tables have one collation."""
    charsets: dict[str, set[str]] = defaultdict(set)
    collations: Counter[str] = Counter()
    for table, collation in dialect.table_collations(conn):
        charset = collation.partition("_")[0]
        charsets["utf8mb3" if charset in ("utf8", "utf8mb3") else charset].add(table)
        collations[collation] += not table.startswith("log_")  # nothing is compared with these
    for charset, tables in sorted(charsets.items()):
        if charset == "utf8mb4":
            continue
        named = ", ".join(sorted(tables)[:3]) + (", …" if len(tables) > 3 else "")
        sentence = (
            f"{len(tables)} tables ({named}) are in {charset}: of texts that civiapi writes there, characters "
            + ("of four bytes (emoji) are cut." if charset == "utf8mb3" else "that it does not have are refused.")
        )
        yield Finding(charset, Severity.NOTICE, sentence, "Convert these tables of CiviCRM's to utf8mb4.")
    if len(+collations) > 1:
        shown = ", ".join(f"{name} ({count} tables)" for name, count in collations.most_common())
        yield Finding("collations", Severity.INFO, f"Tables have different collations: {shown}.")


def time_zone(conn: Connection, clock: SiteClock) -> Iterator[Finding]:
    """Whether the setting is the zone that the extension's rows were written in, and the server can convert to it."""
    zone = clock.zone.key
    yield Finding("timezone", Severity.OK, f"Times are read as {zone} ([database] timezone).")
    if (found := _offset(conn)) is not None:
        offset, at, rows = found
        sentence = f"The extension's rows were written at UTC{_shown(offset)} (by {rows} of them)"
        expected = clock.zone.utcoffset(at.replace(tzinfo=UTC).astimezone(clock.zone).replace(tzinfo=None))
        remedy = f"Set [database] timezone to the zone CiviCRM runs in, or to {_shown(offset)} if that never changes."
        right = f"{sentence}, as [database] timezone = {zone} says."
        wrong = f"{sentence}, but [database] timezone is {zone}, which was UTC{_shown(expected or timedelta(0))} then."
        yield check("zoneOfRows", expected != offset, wrong if expected != offset else right, remedy)
    if trouble := dialect.zone_trouble(conn, clock.zone):
        sentence = f"As CiviCRM does, civiapi uses today's offset for all times, because {trouble}."
        yield Finding("zoneTables", Severity.INFO, sentence)


def _offset(conn: Connection) -> tuple[timedelta, datetime, int] | None:
    """The offset of site times from UTC, a moment (UTC) at which it held, and by how many rows; None: not known.

    The extension repeats the time of a history row, an instant, as a site time (``civicrm_groups``); and for a row that
    mirrors Mailchimp (method ``MCsync``) the cache has Mailchimp's time of the change, seconds or minutes before.
    """
    wanted = (
        select(
            subscription_history.c.group_id,
            subscription_history.c.status,
            subscription_history.c.method,
            expressions.epoch(subscription_history.c.date).label("instant"),
            cache.c.civicrm_groups,
            cache.c.mailchimp_updated,
        )
        .join(cache, cache.c.civicrm_contact_id == subscription_history.c.contact_id)
        .order_by(subscription_history.c.id.desc())
        .limit(MAX_ROWS)
    )
    exact: Counter[timedelta] = Counter()
    near: Counter[timedelta] = Counter()
    held: dict[timedelta, datetime] = {}
    for row in conn.execute(wanted):
        if not row.instant:
            continue
        instant = datetime.fromtimestamp(int(row.instant), UTC).replace(tzinfo=None)
        for entry in (row.civicrm_groups or "").split("|"):
            group_id, _, rest = entry.partition(";")
            state, _, date = rest.partition(";")
            if group_id == str(row.group_id) and state == row.status:
                _count(exact, held, _site_time(date), instant, timedelta(0))
        if row.method == "MCsync":
            _count(near, held, _site_time(row.mailchimp_updated), instant, timedelta(minutes=5))
    for counted in (exact, near):
        if counted and (best := counted.most_common(1)[0])[1] >= MIN_EVIDENCE:
            return best[0], held[best[0]], best[1]
    return None


def _count(
    found: Counter[timedelta],
    held: dict[timedelta, datetime],
    site_time: datetime | None,
    instant: datetime,
    slack: timedelta,
) -> None:
    """Count the offset between the two, if they differ by quarters of an hour and at most *slack* less."""
    if site_time is None:
        return
    offset = round((site_time - instant) / QUARTER) * QUARTER
    if site_time < instant + offset - slack or site_time > instant + offset or abs(offset) > timedelta(hours=14):
        return
    found[offset] += 1
    held.setdefault(offset, instant)


def _site_time(text: str | None) -> datetime | None:
    try:
        return datetime.strptime(text or "", SITE_FORMAT)
    except ValueError:
        return None


def _shown(offset: timedelta) -> str:
    minutes = int(offset.total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def key_holders(conn: Connection, users: Sequence[UserSettings]) -> Iterator[Finding]:
    """Who has an API key, what the key is good for in CiviCRM, and what it is good for here."""
    by_contact = {one.contact_id: one for one in users if one.contact_id is not None}
    account = select(uf_match.c.uf_name).where(uf_match.c.contact_id == contact.c.id).limit(1)
    rows = conn.execute(
        select(contact.c.id, contact.c.display_name, account.correlate(contact).scalar_subquery().label("uf_name"))
        .where(contact.c.api_key.is_not(None), contact.c.api_key != "", contact.c.is_deleted == 0)
        .order_by(contact.c.id)
    ).all()
    if not rows:
        yield Finding("apiKeys", Severity.OK, "No contact has an API key.")
    everybody = ", ".join(sorted(KEY_HOLDER_PERMISSIONS))
    for row in rows:
        who = f"{row.display_name or 'A contact without a name'} (contact {row.id}) has an API key"
        if (user := by_contact.get(row.id)) is not None:
            may = ", ".join(sorted(user.permissions)) or "nothing"
            yield Finding(f"apiKey:{row.id}", Severity.OK, f"{who} and is [user:{user.name}], who may: {may}.")
            continue
        there = (
            f"CiviCRM gives it the permissions of the user account {row.uf_name}"
            if row.uf_name is not None
            else "in CiviCRM it does not work, as no user account belongs to the contact"
        )
        remedy = (
            f"Add [user:NAME] contact_id = {row.id} with the permissions that this account has in the CMS."
            if row.uf_name is not None
            else f"Remove the key, or add [user:NAME] contact_id = {row.id} with permissions."
        )
        yield Finding(f"apiKey:{row.id}", Severity.NOTICE, f"{who}; {there}. Here it may: {everybody}.", remedy)
