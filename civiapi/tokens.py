"""Signed tokens: the JWTs a caller may show instead of a key, and the session cookie. No HTTP, no database.

Both are HS256 under a key derived from the site key, and differ in their ``scope``, so that neither passes for the
other. A token says which contact it speaks for (``sub``: ``cid:NUMBER``) and until when (``exp``).
"""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt

AUTHX = "authx"
SESSION = "civiapi-session"


class TokenError(Exception):
    """The token proves nothing; the text is authx's."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says: the contact, and for a session how it was opened."""

    contact_id: int
    cred: str = "jwt"


class Tokens:
    """Makes and reads the tokens of one site."""

    def __init__(self, site_key: str) -> None:
        # Without a site key nothing signed elsewhere can be good; a key of this process alone serves its sessions.
        secret = site_key.encode() or secrets.token_bytes(32)
        self._key = hmac.new(secret, b"civiapi tokens, version 1", hashlib.sha256).digest()

    def issue(self, contact_id: int, seconds: float, scope: str = AUTHX, cred: str = "jwt") -> str:
        """A token that speaks for the contact for so many seconds. Each is different from every other."""
        claims = {
            "sub": f"cid:{contact_id}",
            "scope": scope,
            "exp": int(time.time() + seconds),
            "jti": secrets.token_hex(8),
            "cred": cred,
        }
        return jwt.encode(claims, self._key, algorithm="HS256")

    def read(self, token: str, scope: str = AUTHX) -> Claims:
        """What the token says. Raises ``TokenError`` if it is not ours, is over, or is for something else."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self._key, algorithms=["HS256"], options={"require": ["exp"], "verify_sub": False}
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenError("Expired token") from error
        except jwt.InvalidTokenError as error:
            raise TokenError("Invalid credential") from error
        if scope not in str(claims.get("scope", "")).split():
            raise TokenError("Invalid credential")
        subject = re.fullmatch(r"cid:([1-9][0-9]{0,9})", str(claims.get("sub", "")))
        if subject is None:
            raise TokenError("Malformed JWT. Must specify the contact ID.")
        return Claims(int(subject[1]), str(claims.get("cred", "jwt")))


def looks_like_token(text: str) -> bool:
    """Whether a bearer value is a JWT rather than an API key: three parts, the first an encoded JSON object."""
    return text.count(".") == 2 and text.startswith("eyJ")
