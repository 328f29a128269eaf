"""Events of connections that no other table records: aborts, the brake, confirmations, webhooks, the configuration.

An event is written in the transaction that does what it tells of. `sync/reports/timeline.py` shows them among runs and
alerts; `[retention] events_days` says how long they are kept.
"""

from sqlalchemy import Connection, insert

from civiapi.store import leases
from civiapi.store.author import Author
from sync.store.tables import event

ABORT, BRAKE, CONFIRM, WEBHOOK, CONFIG = "abort", "brake", "confirm", "webhook", "config"
BY_SYNC = Author(name="sync")
BY_OTHERS = Author(name="outside")
"""Another program, such as CiviCRM's extension, that writes to the same database."""

MAX_SENTENCE = 4000


def record(conn: Connection, kind: str, list_id: str, sentence: str, by: Author = BY_SYNC) -> None:
    """Write down what happened to a connection, and who did it. *sentence* has no secret and no member's data."""
    row = {
        "at_ms": leases.now_ms(),
        "list_id": list_id[:32],
        "kind": kind,
        "contact_id": by.contact_id,
        "author": by.name[:64],
        "sentence": sentence[:MAX_SENTENCE],
    }
    conn.execute(insert(event).values(**row))
