"""Tokens that say who calls."""

from datetime import timedelta

import jwt
import pytest
import time_machine

from civiapi.auth.tokens import SESSION, TokenError, Tokens, looks_like_token

SECRET = "signing-secret-of-tests, long enough"
NONCE = "stored-random-text-of-tests"


def test_a_token_says_for_whom_it_speaks() -> None:
    tokens = Tokens(SECRET, NONCE)
    assert tokens.read(tokens.issue(203, 60)).contact_id == 203


def test_another_process_with_the_same_secrets_reads_it() -> None:
    assert Tokens(SECRET, NONCE).read(Tokens(SECRET, NONCE).issue(7, 60)).contact_id == 7


def test_two_tokens_for_one_contact_differ() -> None:
    tokens = Tokens(SECRET, NONCE)
    assert tokens.issue(7, 60) != tokens.issue(7, 60)


def test_a_token_that_is_over_says_so() -> None:
    tokens = Tokens(SECRET, NONCE)
    token = tokens.issue(7, 60)
    with time_machine.travel(timedelta(seconds=120)), pytest.raises(TokenError, match="Expired token"):
        tokens.read(token)


def _sign(claims: dict[str, object], tokens: Tokens) -> str:
    return jwt.encode({"exp": 4_000_000_000, "scope": "authx", "sub": "cid:7"} | claims, tokens._key, "HS256")


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        pytest.param({"sub": "7"}, "Malformed JWT. Must specify the contact ID.", id="The subject is no contact"),
        pytest.param({"sub": "cid:x"}, "Malformed JWT. Must specify the contact ID.", id="Nor is this"),
        pytest.param({"scope": "other"}, "Invalid credential", id="The scope lacks authx"),
        pytest.param({"scope": ""}, "Invalid credential", id="There is no scope"),
        pytest.param({"exp": None}, "Invalid credential", id="It never ends"),
    ],
)
def test_a_signed_token_must_say_the_right_things(claims: dict[str, object], message: str) -> None:
    tokens = Tokens(SECRET, NONCE)
    with pytest.raises(TokenError) as error:
        tokens.read(_sign(claims, tokens))
    assert str(error.value) == message


def test_authx_may_be_one_of_several_scopes() -> None:
    tokens = Tokens(SECRET, NONCE)
    assert tokens.read(_sign({"scope": "read authx write"}, tokens)).contact_id == 7


@pytest.mark.parametrize(
    "token",
    [
        Tokens("another-signing-secret", NONCE).issue(7, 60),
        jwt.encode({"exp": 4_000_000_000, "scope": "authx", "sub": "cid:7"}, "", "none"),
        Tokens(SECRET, "another-stored-text").issue(7, 60),
        Tokens(SECRET, NONCE).issue(7, 60)[:-3],
        "eyJ.eyJ.x",
        "",
    ],
    ids=["signed elsewhere", "signed for another database", "not signed", "cut short", "nonsense", "nothing"],
)
def test_what_we_did_not_sign_proves_nothing(token: str) -> None:
    with pytest.raises(TokenError, match="Invalid credential"):
        Tokens(SECRET, NONCE).read(token)


def test_a_session_cookie_is_no_credential_and_a_credential_no_session() -> None:
    tokens = Tokens(SECRET, NONCE)
    with pytest.raises(TokenError):
        tokens.read(tokens.issue(7, 60, SESSION))
    with pytest.raises(TokenError):
        tokens.read(tokens.issue(7, 60), SESSION)


@pytest.mark.parametrize(
    ("secret", "nonce"), [("another", NONCE), (SECRET, "another"), ("", NONCE)], ids=["setting", "stored text", "none"]
)
def test_another_setting_or_another_stored_text_ends_all_tokens(secret: str, nonce: str) -> None:
    with pytest.raises(TokenError, match="Invalid credential"):
        Tokens(secret, nonce).read(Tokens(SECRET, NONCE).issue(7, 60))


def test_nothing_is_signed_without_the_stored_text() -> None:
    with pytest.raises(ValueError, match="missing"):
        Tokens(SECRET, "")


def test_a_digest_tells_texts_apart_however_they_are_cut() -> None:
    tokens = Tokens(SECRET, NONCE)
    assert tokens.digest("ab", "c") == tokens.digest("ab", "c")
    assert (
        len({tokens.digest("ab", "c"), tokens.digest("a", "bc"), tokens.digest("abc"), tokens.digest("abc", "")}) == 4
    )


def test_an_api_key_does_not_look_like_a_token() -> None:
    assert looks_like_token(Tokens(SECRET, NONCE).issue(7, 60))
    assert not looks_like_token("eyJabc")
    assert not looks_like_token("a.b.c")
