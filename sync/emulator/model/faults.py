"""Faults to inject: which requests they match, and how often. `protocol.fault_responses` has what they answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from random import Random
from typing import Any


class FaultAction(StrEnum):
    """What goes wrong. The ``reset_*`` pair differ in whether the write took effect before the line broke."""

    TOO_MANY_JSON = "429_json"
    TOO_MANY_BARE = "429_bare"
    FORBIDDEN_HTML = "403_html"
    USER_DISABLED = "403_user_disabled"
    SERVER_ERROR = "500"
    BAD_GATEWAY = "502_html"
    BLOCK_PAGE = "503_block"
    OK_HTML = "200_html"
    HANG = "hang"
    SLOW_BODY = "slow_body"
    RESET_BEFORE = "reset_before"
    RESET_AFTER = "reset_after"
    TRUNCATED_JSON = "truncated_json"


@dataclass(slots=True)
class FaultRule:
    """Applies to requests that match everything given: method, path (regular expression, searched), address, operation.

    *count* limits how often (None: no limit), *skip* passes that many matches first, *probability* is drawn each time.
    """

    action: FaultAction
    method: str = ""
    path: str = ""
    email: str = ""
    operation_id: str = ""
    probability: float = 1.0
    count: int | None = None
    skip: int = 0
    struck: int = field(default=0)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> FaultRule:
        """Read a rule. Raises ValueError naming an unknown key, action or pattern."""
        known = {f.name for f in fields(cls)}
        if unknown := set(body) - known:
            raise ValueError(f"A fault rule has no {', '.join(sorted(unknown))}; it knows {', '.join(sorted(known))}")
        try:
            action = FaultAction(body.get("action", ""))
        except ValueError:
            raise ValueError(f"A fault's action is one of {', '.join(FaultAction)}") from None
        try:
            re.compile(str(body.get("path", "")))
        except re.error as error:
            raise ValueError(f"A fault's path is a regular expression: {error}") from error
        return cls(**{**body, "action": action})

    def fires(self, method: str, path: str, emails: set[str], operation_id: str, rng: Random) -> bool:
        """Return whether the fault happens to this request, and count it in `struck`. *emails* are in lower case."""
        if self.count is not None and self.struck >= self.count:
            return False
        if not self._matches(method, path, emails, operation_id):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.probability < 1.0 and rng.random() >= self.probability:
            return False
        self.struck += 1
        return True

    def _matches(self, method: str, path: str, emails: set[str], operation_id: str) -> bool:
        return (
            (not self.method or self.method.upper() == method.upper())
            and (not self.path or re.search(self.path, path) is not None)
            and (not self.email or self.email.lower() in emails)
            and (not self.operation_id or self.operation_id == operation_id)
        )
