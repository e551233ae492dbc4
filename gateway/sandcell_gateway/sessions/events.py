"""What happens to a session, numbered, so that who lost the line can go on where it was.

The newest `MAX_EVENTS` are kept as long as the gateway runs. Who asks for what is not there
any more, or was numbered by an earlier gateway, is told the present state instead.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sandcell_gateway.clock import now
from sandcell_wire.models import Reason, SessionEvent, SessionEventType
from sandcell_wire.states import FINAL, Status

MAX_EVENTS = 256
"""So many of one session are kept."""


@dataclass(frozen=True)
class Happening:
    """One event, and the `id` by which a client says that it has it."""

    id: str | None
    event: SessionEvent


class EventLog:
    """One session's events since this gateway keeps it."""

    def __init__(self, session_id: str, status: Status, reason: Reason | None) -> None:
        self._session_id = session_id
        self._status = status
        self._reason = reason
        self._epoch = uuid.uuid4().hex[:12]
        self._count = 0
        self._kept: deque[SessionEvent] = deque(maxlen=MAX_EVENTS)

    def has_newer(self, last: str | None) -> bool:
        """Whether the event with this id is not the newest."""
        return last != self._id(self._count)

    def note(self, status: Status, reason: Reason | None) -> None:
        """The session is in this status now, for this reason."""
        before, self._reason = self._status, reason
        if status is before:
            return
        self._status = status
        for event in self._events(before, now()):
            self._count += 1
            self._kept.append(event)

    def since(self, last: str | None) -> Sequence[Happening]:
        """What came after the event with this id; the present state if that is not known."""
        first = self._count - len(self._kept) + 1
        seen = self._number(last)
        if seen is None or not first - 1 <= seen <= self._count:
            *before, newest = self._events(None, now())
            # Who has not the last of them has not the present state.
            return [
                *(Happening(None, event) for event in before),
                Happening(self._id(self._count), newest),
            ]
        return [
            Happening(self._id(number), event)
            for number, event in enumerate(self._kept, first)
            if number > seen
        ]

    def _events(self, old: Status | None, moment: datetime) -> Iterator[SessionEvent]:
        kinds: list[SessionEventType] = ["status_changed"]
        if self._status is Status.ERROR:
            kinds.append("error")
        if self._status in FINAL:
            kinds.append("terminated")
        for kind in kinds:
            yield SessionEvent.model_validate(
                {
                    "type": kind,
                    "session_id": self._session_id,
                    "old": old,
                    "new": self._status,
                    "reason": self._reason,
                    "at": moment,
                }
            )

    def _id(self, number: int) -> str:
        return f"{self._epoch}-{number}"

    def _number(self, last: str | None) -> int | None:
        epoch, _, number = (last or "").partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdecimal()):
            return None
        return int(number[:18])
