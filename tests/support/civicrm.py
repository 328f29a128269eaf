"""A database as CiviCRM and the mailchimpsync extension leave it half-way through a sync, on MariaDB.

Tables, keys, foreign keys and triggers are in ``civicrm_5_75.sql``; the rows have the shapes that the extension writes:
PHP-serialized settings and data, the later flat ``mailchimp_data`` beside the nested one of 2020, a batch that
Mailchimp is at work on, an update that waits, a smart group, a contact with an API key. The site lives in Helsinki.
"""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import phpserialize

from sync.mailchimp.wire import subscriber_hash
from tests.support.databases import an_empty_database, sql

TABLES = Path(__file__).parent / "civicrm_5_75.sql"
ZONE, OFFSET = "Etc/GMT-3", "+03:00"  # the same all year: this server may not know zones by name
NEWS, TREES, SMART = 2, 3, 4
INTEREST = "aaaa000001"
API_KEY = "api-key-of-a-contact-in-civicrm"


@contextmanager
def a_civicrm(
    folder: Path, *, key: str, list_id: str, batch_id: str, smart: bool = False, then: Sequence[str] = ()
) -> Iterator[str]:
    """The URL of such a database, linked with an audience; its batch in flight is Mailchimp's *batch_id*.

    *then*: statements that make it another version's (``civicrm_versions.py``).
    """
    with an_empty_database("mariadb", folder) as url:
        name = url.rpartition("/")[2]
        words = f"SET foreign_key_checks = 0; SET time_zone = '{OFFSET}';\n" + TABLES.read_text("utf-8")
        words += "\n".join([*_rows(key, list_id, batch_id, SMART if smart else NEWS), *then])
        client = ["mysql", "-uroot", "-h127.0.0.1", "--default-character-set=utf8mb4", name]
        subprocess.run(client, input=words, text=True, check=True, capture_output=True, timeout=60)
        yield url


def tables_of(url: str) -> dict[str, str]:
    """The definition of every table, as the server shows it; counters left out."""
    name = url.rpartition("/")[2]
    found = {}
    for [table] in sql(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{name}'"):
        shown = sql(f"SHOW CREATE TABLE `{table}`", database=name)[0][1].replace("\\n", "\n")
        found[table] = "\n".join(line.split(" AUTO_INCREMENT=")[0] for line in shown.splitlines())
    for [trigger] in sql(f"SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = '{name}'"):
        found[f"trigger {trigger}"] = sql(f"SHOW CREATE TRIGGER `{trigger}`", database=name)[0][2]
    return found


def contents_of(url: str) -> dict[str, str]:
    """A checksum of every table's rows."""
    name = url.rpartition("/")[2]
    tables = [row[0] for row in sql(f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{name}'")]
    return {row[0]: row[1] for row in sql("CHECKSUM TABLE " + ", ".join(f"`{one}`" for one in tables), database=name)}


def config(key: str, list_id: str, group_id: int) -> dict[str, Any]:
    """The configuration as the extension stores it."""
    hook = "https://crm.example.org/civicrm/mailchimpsync/webhook?secret=" + "5" * 40
    audience = {"name": "News", "interests": {INTEREST: "Topics: Trees"}, "webhook": hook, "webhooks": []}
    account = {
        "apiKey": key,
        "account_name": "Charity",
        "audiences": {list_id: audience},
        "webhookUrl": hook,
        "batchWebhookSecret": "6" * 40,
        "batchWebhooks": [],
    }
    link = {"apiKey": key, "subscriptionGroup": group_id, "interests": {INTEREST: TREES}}
    return {"accounts": {key: account}, "lists": {list_id: link}}


def php(value: Any) -> str:
    """As PHP serializes it, as text."""
    return phpserialize.dumps(value, charset="utf-8").decode()


def _rows(key: str, list_id: str, batch_id: str, group_id: int) -> Sequence[str]:
    stored = php(orjson.dumps(config(key, list_id, group_id)).decode())
    old = php({"first_name": "Zoë", "last_name": "O'Neil", "interests": {INTEREST: True}})
    flat = php(
        {"status": "subscribed", "status@": "20260101090000", "first_name": "Bob", "first_name@": "20260101090000"}
    )
    locks = {"fetchAndReconcile": "readyToSubmitUpdates"}
    entry = {"time": "2026-01-05 12:00:00", "message": "submitBatch: begin"}
    status = php({"lastSyncTime": "2026-01-05 12:00:00", "locks": locks, "log": {0: entry}, "fetch": {}})
    people = (("Zoë", "zoe", None), ("Bob", "bob", None), ("Cy", "cy", None), ("Dee", "dee", API_KEY))
    made = [
        _insert("civicrm_domain", id=1, name="Default Domain Name", version="5.75.1"),
        _insert("civicrm_location_type", id=1, name="Home", display_name="Home", is_default=1),
        _insert("civicrm_option_group", id=1, name="gender"),
        _insert("civicrm_saved_search", id=1),
        _insert("civicrm_job", id=1, domain_id=1, run_frequency="Hourly", name="Sync", api_entity="Mailchimpsync",
                api_action="Fetchandreconcile", parameters=""),
        _insert("civicrm_setting", name="mailchimpsync_config", value=stored, domain_id=1, is_domain=1),
    ]  # fmt: skip
    for number, name, search in ((NEWS, "News", None), (TREES, "Trees", None), (SMART, "Clever", 1)):
        made.append(
            _insert("civicrm_group", id=number, name=name, title=name, frontend_title=name, saved_search_id=search)
        )
    for number, (first, local, api_key) in enumerate(people, 5):
        made += [
            _insert("civicrm_contact", id=number, contact_type="Individual", first_name=first, last_name="Member",
                    display_name=first, sort_name=first, api_key=api_key, hash=str(number)),
            _insert("civicrm_email", contact_id=number, email=f"{local}@example.org", is_primary=1, location_type_id=1),
            _insert("civicrm_group_contact", group_id=NEWS, contact_id=number, status="Added"),
            _insert("civicrm_subscription_history", contact_id=number, group_id=NEWS, date="2026-01-05 11:00:00",
                    method="Admin", status="Added"),
        ]  # fmt: skip
    groups = f"{NEWS};Added;2026-01-05 11:00:00"
    made += [
        _insert("civicrm_mailchimpsync_batch", id=1, mailchimp_list_id=list_id, mailchimp_batch_id=batch_id,
                status="pending", submitted_at="2026-01-05 12:00:00", total_operations=1),
        _cache(1, list_id, "zoe", 5, groups, old, "ok"),
        _cache(2, list_id, "bob", 6, groups, flat, "ok"),
        _insert("civicrm_mailchimpsync_cache", id=3, mailchimp_list_id=list_id, civicrm_contact_id=7,
                civicrm_groups=groups, sync_status="live"),
        _insert("civicrm_mailchimpsync_cache", id=4, mailchimp_list_id=list_id, civicrm_contact_id=8,
                civicrm_groups=groups, sync_status="live"),
        _update(1, 3, 1, "cy"),
        _update(2, 4, None, "dee"),
        _insert("civicrm_mailchimpsync_status", list_id=list_id, data=status),
    ]  # fmt: skip
    return made


def _cache(number: int, list_id: str, local: str, contact_id: int, groups: str, data: str, state: str) -> str:
    address = f"{local}@example.org"
    return _insert(
        "civicrm_mailchimpsync_cache",
        id=number,
        mailchimp_list_id=list_id,
        mailchimp_member_id=subscriber_hash(address),
        mailchimp_email=address,
        mailchimp_status="subscribed",
        mailchimp_updated="2026-01-05 11:30:00",
        mailchimp_data=data,
        civicrm_groups=groups,
        civicrm_contact_id=contact_id,
        sync_status=state,
    )


def _update(number: int, cache_id: int, batch_id: int | None, local: str) -> str:
    data = orjson.dumps({"email_address": f"{local}@example.org", "status": "subscribed"}).decode()
    values = {"mailchimpsync_cache_id": cache_id, "mailchimpsync_batch_id": batch_id, "data": data}
    return _insert("civicrm_mailchimpsync_update", id=number, completed=0, **values)


def _insert(table: str, **values: Any) -> str:
    given: Mapping[str, Any] = {name: value for name, value in values.items() if value is not None}
    shown = [str(one) if isinstance(one, int) else "'" + one.replace("\\", "\\\\").replace("'", "''") + "'"
             for one in given.values()]  # fmt: skip
    return f"INSERT INTO `{table}` ({', '.join(f'`{name}`' for name in given)}) VALUES ({', '.join(shown)});"
