"""How far Mailchimp's clock is from ours, steady enough to date things by."""

from datetime import timedelta

SKEW_FROM = 5
"""Seconds by which the clocks must differ to be called different: a ``Date`` header is cut to whole seconds."""


def steady_skew(offset: timedelta | None) -> timedelta:
    """Mailchimp's clock minus ours in whole seconds, as a client measured it (None: not yet); nothing where small."""
    seconds = round(offset.total_seconds()) if offset is not None else 0
    return timedelta(seconds=seconds if abs(seconds) >= SKEW_FROM else 0)
