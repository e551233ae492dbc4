"""When a delivery is tried again, and what an answer means. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sandcell_wire.models import WebhookState

PENDING: WebhookState = "pending"
DELIVERED: WebhookState = "delivered"
GIVEN_UP: WebhookState = "given_up"
GONE = 410
"""The receiver wants no more."""
_MAX_DOUBLINGS = 64


@dataclass(frozen=True)
class Answer:
    """What one attempt brought."""

    status: int | None = None
    """HTTP status; None when there was no answer."""
    error: str | None = None
    """Why there was none."""
    retry_after: float | None = None
    """Seconds that the receiver wants to be left alone."""

    @property
    def verdict(self) -> WebhookState:
        """What becomes of the delivery: it goes on when it is still pending."""
        if self.status is not None and 200 <= self.status < 300:
            return DELIVERED
        return GIVEN_UP if self.status == GONE else PENDING


@dataclass(frozen=True)
class Schedule:
    """Delays between attempts, in seconds."""

    first: float = 5.0
    """After the first attempt."""
    factor: float = 3.0
    """By which each delay is longer than the one before."""
    most: float = 2 * 3600.0
    """No delay of ours is longer."""
    most_asked: float = 6 * 3600.0
    """No receiver is left alone for longer, whatever it asks for."""
    patience: float = 24 * 3600.0
    """Nothing is tried later than so long after the job's end was noticed, but once at least."""

    def next(
        self, attempts: int, waited: float, asked: float | None, chance: float
    ) -> float | None:
        """Seconds until the next attempt after so many; None when no more is to be tried.

        `waited` are the seconds since the job's end was noticed, `asked` the ones that the
        receiver asked for. `chance`, between 0 and 1, spreads deliveries that failed
        together: a delay is between half and all of what it would be.
        """
        steps = min(attempts - 1, _MAX_DOUBLINGS)
        delay = min(self.first * self.factor**steps, self.most) * (1 + chance) / 2
        if asked is not None:
            # Never sooner than without it: a receiver may not make us try without end.
            delay = max(delay, min(asked, self.most_asked))
        return delay if waited + delay <= self.patience else None


def retry_after(value: str, now: datetime) -> float | None:
    """The seconds of a `Retry-After` header (RFC 9110, section 10.2.3); None for nonsense."""
    if value.isascii() and value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
