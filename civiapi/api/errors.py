"""The errors that an API caller can get.

    ApiError                 any deliberate APIv3 error: code, message, extra keys
    ├── NoSuchAction             no such entity or action
    ├── WritesInReadOnlyCall an action that writes, in a request that may only read
    ├── Unauthorized         the caller lacks a permission
    ├── MandatoryMissing     a required parameter is absent
    ├── InvalidValue         a parameter has the wrong type or is no option
    ├── ReturnedError        an error that is also an answer: in a chain it is put into the row, and the call continues
    └── SyncError            a request that the sync cannot meet; its kinds are in ``sync/errors.py``

``civiapi/api/envelope.py`` formats them. Any other exception is logged and answered as an unknown error. Messages are
CiviCRM's (``contract/apiv3.md``).
"""

from collections.abc import Sequence
from typing import Any


class ApiError(Exception):
    """An APIv3 error; the call changed nothing.

    ``code`` is CiviCRM's ``error_code`` (0 by default); ``extra`` are further keys of the answer.
    """

    def __init__(self, message: str, code: str | int = 0, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.extra = extra


class NoSuchAction(ApiError):
    """No such entity, or no such action on it."""

    def __init__(self, entity: str, action: str) -> None:
        super().__init__(f"API ({entity}, {action}) does not exist (join the API team and implement it!)", "not-found")


class WritesInReadOnlyCall(ApiError):
    """Only a POST may change data (CiviCRM's message)."""

    def __init__(self) -> None:
        super().__init__("SECURITY: All requests that modify the database must be http POST, not GET.")


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
