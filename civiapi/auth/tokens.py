"""Signed tokens: JWTs as credentials, and session cookies. No HTTP, no database.

Both are HS256 with the site's signing key, and have different scopes, so that neither is accepted for the other. A
token names its contact (``sub``: ``cid:NUMBER``) and its expiry (``exp``); a session also has a digest of the account's
state when it was opened (``bind``).
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
    """The token is not valid; the text is authx's. *ours*: the signature is good, so that this is no guess."""

    def __init__(self, message: str, *, ours: bool = False) -> None:
        super().__init__(message)
        self.ours = ours


@dataclass(frozen=True, slots=True)
class Claims:
    """The content of a valid token: the contact, and for a session the credential that opened it and its binding."""

    contact_id: int
    cred: str = "jwt"
    bind: str = ""


class Tokens:
    """Issues and reads the tokens of one site.

    *secret* is the setting, which may be empty; *nonce* is the random text stored in the database.
    """

    def __init__(self, secret: str, nonce: str) -> None:
        if not nonce:
            raise ValueError("The nonce of the signing key is missing")
        self._key = hmac.new(secret.encode(), b"civiapi tokens, version 2\0" + nonce.encode(), hashlib.sha256).digest()

    def issue(self, contact_id: int, seconds: float, scope: str = AUTHX, cred: str = "jwt", bind: str = "") -> str:
        """A new token for the contact, valid for *seconds*."""
        claims = {
            "sub": f"cid:{contact_id}",
            "scope": scope,
            "exp": int(time.time() + seconds),
            "jti": secrets.token_hex(8),
            "cred": cred,
            "bind": bind,
        }
        return jwt.encode(claims, self._key, algorithm="HS256")

    def read(self, token: str, scope: str = AUTHX) -> Claims:
        """The content of a token. Raises ``TokenError`` if it is not ours, has expired, or has another scope."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self._key, algorithms=["HS256"], options={"require": ["exp"], "verify_sub": False}
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenError("Expired token", ours=True) from error
        except jwt.InvalidTokenError as error:
            raise TokenError("Invalid credential") from error
        if scope not in str(claims.get("scope", "")).split():
            raise TokenError("Invalid credential", ours=True)
        subject = re.fullmatch(r"cid:([1-9][0-9]{0,9})", str(claims.get("sub", "")))
        if subject is None:
            raise TokenError("Malformed JWT. Must specify the contact ID.", ours=True)
        return Claims(int(subject[1]), str(claims.get("cred", "jwt")), str(claims.get("bind", "")))

    def digest(self, *parts: str) -> str:
        """A keyed digest of texts: it shows whether they changed, and discloses nothing else."""
        text = b"".join(len(part := one.encode("utf-8", "surrogatepass")).to_bytes(8, "big") + part for one in parts)
        return hmac.new(self._key, b"digest\0" + text, hashlib.sha256).hexdigest()[:32]


def looks_like_token(text: str) -> bool:
    """Whether a bearer value is a JWT rather than an API key: three parts, the first an encoded JSON object."""
    return text.count(".") == 2 and text.startswith("eyJ")
