"""A new emulated Mailchimp for each test."""

from __future__ import annotations

import pytest

from tests.emulator.mailchimp import Mailchimp


@pytest.fixture
def mailchimp() -> Mailchimp:
    return Mailchimp()
