"""What went wrong, for people: what happened, and whether anything is at risk. Pure.

The technical text is kept for "Details".
"""

from dataclasses import dataclass

SAFE = "Nothing is lost: the next sync continues where this one stopped."


@dataclass(frozen=True, slots=True)
class Problem:
    """*what* happened, what is *at_risk*, and the technical text in *details*."""

    what: str
    at_risk: str
    details: str
    needs_key: bool = False


_KINDS = (
    (("Invalid API key", ": 401 ", ": 403 "), "Mailchimp did not accept the API key of this account.", SAFE),
    (("throttled", ": 429 "), "Mailchimp asked for fewer requests at a time.", SAFE),
    (("No usable answer from Mailchimp",), "Mailchimp could not be reached.", SAFE),
    ((": 404 ",), "Mailchimp does not have this audience any more, or the key has no access to it.", SAFE),
    (("Mailchimp refused",), "Mailchimp refused a request of the sync.", SAFE),
    (("fault of ours",), "The sync met an unexpected error.", SAFE),
)
OTHER = "The sync could not continue."


def of_failed_sync(text: str) -> Problem:
    """Why a sync stopped."""
    for parts, what, at_risk in _KINDS:
        if any(part in text for part in parts):
            return Problem(what, at_risk, text, needs_key=parts is _KINDS[0][0])
    return Problem(OTHER, SAFE, text)
