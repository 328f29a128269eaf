"""Signatures of deliveries: which are good, and which secrets are kept for how long."""

import hashlib
import hmac

import pytest

from civiapi.store.engine import Store
from sync.connections.webhook_signatures import (
    TOLERANCE_S,
    find_signed_lists,
    find_signing_secrets,
    forget_missing_hooks,
    is_signed_by,
    store_signing_secret,
)

NOW = 1_790_000_000
BODY = b"type=profile&data%5Bemail%5D=ada%40example.org"
SECRET = "the-signing-secret"


def _sign(secret: str = SECRET, at: int = NOW, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


GOOD = _sign()


@pytest.mark.parametrize(
    ("header", "good"),
    [
        pytest.param(f"t={NOW},v1={GOOD}", True, id="As Mailchimp sends it."),
        pytest.param(f"t={NOW}, v1={GOOD}", True, id="With a space."),
        pytest.param(f"v1={GOOD},t={NOW}", True, id="In another order."),
        pytest.param(f"t={NOW},v1={'0' * 64},v1={GOOD}", True, id="One of several, while the secret changes."),
        pytest.param(f"t={NOW},v0=x,v1={GOOD}", True, id="Beside another version."),
        pytest.param(f"t={NOW - TOLERANCE_S},v1={_sign(at=NOW - TOLERANCE_S)}", True, id="As old as it may be."),
        pytest.param(f"t={NOW + TOLERANCE_S},v1={_sign(at=NOW + TOLERANCE_S)}", True, id="From a clock ahead."),
        pytest.param(f"t={NOW - TOLERANCE_S - 1},v1={_sign(at=NOW - TOLERANCE_S - 1)}", False, id="Too old."),
        pytest.param(f"t={NOW + TOLERANCE_S + 1},v1={_sign(at=NOW + TOLERANCE_S + 1)}", False, id="Too far ahead."),
        pytest.param(f"t={NOW + 1},v1={GOOD}", False, id="Another time than was signed."),
        pytest.param(f"t={NOW},v1={_sign('another')}", False, id="By another secret."),
        pytest.param(f"t={NOW},v1={_sign(body=BODY + b'x')}", False, id="Of another body."),
        pytest.param(f"t={NOW},v1={GOOD[:-1]}", False, id="Cut short."),
        pytest.param(f"t={NOW},v1={GOOD.upper()}", False, id="In capitals."),
        pytest.param(f"t={NOW},v0={GOOD}", False, id="Of another version."),
        pytest.param(f"v1={GOOD}", False, id="Without a time."),
        pytest.param(f"t={NOW},t={NOW},v1={GOOD}", False, id="With two times."),
        pytest.param(f"t=+{NOW},v1={GOOD}", False, id="With a sign."),
        pytest.param(f"t={NOW}.0,v1={GOOD}", False, id="With a fraction."),
        pytest.param(f"t=٣,v1={GOOD}", False, id="With foreign digits."),
        pytest.param("t=" + "9" * 5000 + f",v1={GOOD}", False, id="With a huge time."),
        pytest.param(f"t={NOW},v1=é", False, id="Not even hexadecimal."),
        pytest.param(f"t={NOW}", False, id="Nothing but a time."),
        pytest.param(GOOD, False, id="Nothing but a digest."),
        pytest.param("", False, id="Missing."),
        pytest.param("," * 100_000, False, id="Commas."),
    ],
)
def test_a_signature_is_good_or_not(header: str, good: bool) -> None:
    assert is_signed_by([SECRET], header, BODY, NOW) is good
    assert is_signed_by(["another", SECRET], header, BODY, NOW) is good or header.endswith(_sign("another"))
    assert not is_signed_by([], header, BODY, NOW)


async def test_a_secret_is_kept_as_long_as_its_webhook_is_there(store: Store) -> None:
    await store.write(store_signing_secret, "list1", "hook1", "one")
    await store.write(store_signing_secret, "list2", "hook2", "two")
    await store.write(store_signing_secret, "list1", "hook1", "renewed")
    assert await store.read(find_signing_secrets, "list1") == ["renewed"]
    await store.write(forget_missing_hooks, "list1", ["hook1", "hook9"])
    assert await store.read(find_signed_lists) == {"list1", "list2"}
    await store.write(forget_missing_hooks, "list1", [])
    assert await store.read(find_signed_lists) == {"list2"}
    assert await store.read(find_signing_secrets, "list1") == []
