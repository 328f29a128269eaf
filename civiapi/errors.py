"""What an API caller may be told.

    ApiError                 any deliberate APIv3 error: code, message, extra keys
    ├── NotFound             no such entity or action
    ├── Unauthorized         the caller lacks a permission
    ├── MandatoryMissing     a required parameter is absent
    ├── InvalidValue         a parameter has the wrong type or is no option
    └── ReturnedError        an answer that says what is wrong: in a chain it stands in the row and the call goes on

The envelope words them (``civiapi/envelope.py``); each adapter dresses the envelope. Nothing else reaches a caller:
any other exception is answered as an unknown error and logged. Messages are CiviCRM's own (``contract/apiv3.md``).
"""

from collections.abc import Sequence
from typing import Any


class ApiError(Exception):
    """An APIv3 error: the call did nothing, and this is why.

    ``code`` is CiviCRM's ``error_code`` (0 unless it says otherwise); ``extra`` are further keys of the answer.
    """

    def __init__(self, message: str, code: str | int = 0, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.extra = extra


class NotFound(ApiError):
    """No such entity, or no such action on it."""

    def __init__(self, entity: str, action: str) -> None:
        super().__init__(f"API ({entity}, {action}) does not exist (join the API team and implement it!)", "not-found")


class Unauthorized(ApiError):
    """The caller may not do this."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "unauthorized")


class MandatoryMissing(ApiError):
    """Required parameters are absent; alternatives read ``one of (a, b)``."""

    def __init__(self, fields: Sequence[str]) -> None:
        super().__init__(
            f"Mandatory key(s) missing from params array: {', '.join(fields)}", "mandatory_missing", fields=list(fields)
        )


class InvalidValue(ApiError):
    """A parameter's value does not fit its field. CiviCRM's codes: 2001 wrong type or option, 2100 too long."""


class ReturnedError(ApiError):
    """An error that CiviCRM returns rather than throws (getsingle with two matches): a chain keeps it as the answer."""
