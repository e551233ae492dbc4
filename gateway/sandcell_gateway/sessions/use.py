"""Whether anybody uses a session, and when one that its client left is closed.

A local kernel closes its unnamed session itself. One that was killed and never started
again cannot; its session would live for ever (PROTOCOL, "Who owns a session").
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandcell_gateway.store.tables import SessionRow
from sandcell_wire.models import CLIENT_LABEL, KERNEL, RUN, Reason

SETTLE = timedelta(seconds=5)
"""Who asks for a close and goes is still attached for a moment; who is after it stays."""
RETURN = timedelta(seconds=15)
"""How long after a start of the gateway clients of the last one are waited for."""


class Use:
    """Since when a session has had no channel and no open execution."""

    def __init__(self, unused_since: datetime) -> None:
        self.unused_since: datetime | None = unused_since
        """None while it is in use."""
        self.left: datetime | None = None
        """When the last channel ended, if one did."""
        self._channels: Counter[str] = Counter()
        """How many each client has."""
        self._runs = False

    def channel(self, change: int, moment: datetime, client: str = "") -> None:
        """One more (1) or less (-1) of this client is open."""
        self._channels[client] += change
        if not self._channels[client]:
            del self._channels[client]
        if change < 0:
            self.left = moment
        self._note(moment)

    def attached(self, *, but: str | None = None) -> bool:
        """Whether anybody has a channel, or anybody but this client."""
        return any(client != but for client in self._channels)

    def execution(self, runs: bool, moment: datetime) -> None:
        """Whether one is open."""
        self._runs = runs
        self._note(moment)

    def _note(self, moment: datetime) -> None:
        if self._channels or self._runs:
            self.unused_since = None
        elif self.unused_since is None:
            self.unused_since = moment


@dataclass(frozen=True)
class PutOff:
    """A close that was put off: the row has its moment, this is what else is known of it."""

    asked: datetime
    grace: timedelta
    client: str | None = None
    """Who asked for it and leaves: its channels keep nothing open."""

    def due(self, moment: datetime, use: Use) -> datetime:
        """When it falls due, if it was to be at this moment: a line that was cut is no end."""
        return moment if use.left is None else max(moment, use.left + self.grace)

    def withdrawn(self, moment: datetime, use: Use) -> datetime | None:
        """From when on it, being due, is withdrawn because of who is attached; None if it counts.

        It cannot wait until they go: then a cut of their line would end the session at once.
        """
        if not use.attached(but=self.client):
            return None
        return max(moment, self.asked + SETTLE)


def expires_at(row: SessionRow, use: Use, timeout: float) -> datetime | None:
    """When the session is closed because its client has left it; None for never."""
    is_client_s = row.name is None and row.labels.get(CLIENT_LABEL) in (KERNEL, RUN)
    if not is_client_s or use.unused_since is None:
        return None
    return use.unused_since + timedelta(seconds=timeout)


def end_reason(row: SessionRow, timeout: float) -> Reason:
    """Why a session whose end has begun was closed."""
    if row.closes_at is not None:
        return Reason(code="closed", text="closed on request")
    return Reason(code="expired", text=f"nobody used it for {timeout:g} seconds")
