"""Signatures of audience webhooks: the secrets that Mailchimp hands out, one for each webhook, and verifying with them.

Mailchimp may answer the creation of a webhook with a signing secret, once, and then signs each delivery:
``X-Mailchimp-Signature: t=<seconds>,v1=<hex>``, an HMAC-SHA256 over ``<t>.<raw body>``. The secret is in our own table
rather than in the configuration, which CiviCRM's screens and the extension read and write. An audience for which none
is stored is served by the secret in the address alone, as before.
"""

import hashlib
import hmac
from collections.abc import Iterable

from sqlalchemy import Connection, delete, select

from civiapi.store.databases.dialect import upsert
from sync.store.tables import hook_signing

SIGNATURE_HEADER = "X-Mailchimp-Signature"
TOLERANCE_S = 300  # between Mailchimp's clock and ours, either way
MAX_HEADER = 2000  # characters


def store_signing_secret(conn: Connection, list_id: str, hook_id: str, secret: str) -> None:
    """Keep the secret of a webhook; deliveries for the audience need a signature from now on."""
    row = {"hook_id": hook_id, "list_id": list_id, "secret": secret}
    upsert(conn, hook_signing, [row], key=("hook_id",), set_=("list_id", "secret"))


def forget_missing_hooks(conn: Connection, list_id: str, hook_ids: Iterable[str]) -> None:
    """Delete the secrets of an audience's webhooks that Mailchimp has no more."""
    known = hook_signing.c.hook_id
    conn.execute(delete(hook_signing).where(hook_signing.c.list_id == list_id, known.not_in(list(hook_ids))))


def find_signing_secrets(conn: Connection, list_id: str) -> list[str]:
    """The secrets of an audience's webhooks; a delivery is signed with one of them, if there are any."""
    return list(conn.execute(select(hook_signing.c.secret).where(hook_signing.c.list_id == list_id)).scalars())


def find_signed_lists(conn: Connection) -> set[str]:
    """The audiences whose deliveries must be signed."""
    return set(conn.execute(select(hook_signing.c.list_id)).scalars())


def is_signed_by(secrets: Iterable[str], header: str, body: bytes, now_s: float) -> bool:
    """Whether *header* has a signature of *body* by one of *secrets*, made within the tolerance. Constant time."""
    pairs = [part.strip().partition("=") for part in header[:MAX_HEADER].split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    shown = [value.encode("utf-8", "surrogatepass") for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) < 16):
        return False
    signed = times[0].encode() + b"." + body
    right = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets]
    matches = [hmac.compare_digest(one, other) for one in right for other in shown]
    return any(matches) and abs(now_s - int(times[0])) <= TOLERANCE_S
