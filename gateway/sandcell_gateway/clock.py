"""Moments in UTC, as all that is stored and sent has them."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The present one."""
    return datetime.now(UTC)


def from_unix(seconds: float) -> datetime:
    """The one so many seconds after 1970."""
    return datetime.fromtimestamp(seconds, UTC)
