"""The states of a session and the moves between them, as one table.

A status is what a user sees; an event is what happened. `next_status` is the
only place that reads the table. DESIGN: "Sessions".
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What a session is doing now."""

    INITIALIZING = "initializing"
    """The sandbox is being made or restored."""
    IDLE = "idle"
    """The kernel is ready and nothing runs."""
    ACTIVE = "active"
    """A cell or command runs."""
    PAUSED = "paused"
    """Frozen: no CPU, state in memory."""
    HIBERNATED = "hibernated"
    """State on disk, no memory held."""
    COMPLETED = "completed"
    """Final: done."""
    TERMINATED = "terminated"
    """Final: shut down, with a reason."""
    ERROR = "error"
    """Sandbox or kernel failed, with a reason."""


class Event(StrEnum):
    """What can happen to a session."""

    READY = "ready"
    BUSY = "busy"
    DONE = "done"
    PAUSE = "pause"
    RESUME = "resume"
    HIBERNATE = "hibernate"
    RESTART = "restart"
    COMPLETE = "complete"
    FAIL = "fail"
    CLOSE = "close"


FINAL = frozenset({Status.COMPLETED, Status.TERMINATED})
LIVE = frozenset(Status) - FINAL
GROUPS: dict[str, frozenset[Status]] = {
    "running": frozenset({Status.INITIALIZING, Status.IDLE, Status.ACTIVE}),
    "paused": frozenset({Status.PAUSED, Status.HIBERNATED}),
}
"""Filters that name several states at once."""

_TABLE: dict[tuple[Status, Event], Status] = {
    (Status.INITIALIZING, Event.READY): Status.IDLE,
    (Status.INITIALIZING, Event.BUSY): Status.ACTIVE,
    (Status.INITIALIZING, Event.RESTART): Status.INITIALIZING,
    (Status.IDLE, Event.BUSY): Status.ACTIVE,
    (Status.IDLE, Event.PAUSE): Status.PAUSED,
    (Status.IDLE, Event.HIBERNATE): Status.HIBERNATED,
    (Status.IDLE, Event.COMPLETE): Status.COMPLETED,
    (Status.IDLE, Event.RESTART): Status.INITIALIZING,
    (Status.ACTIVE, Event.DONE): Status.IDLE,
    (Status.ACTIVE, Event.PAUSE): Status.PAUSED,
    (Status.ACTIVE, Event.RESTART): Status.INITIALIZING,
    (Status.PAUSED, Event.RESUME): Status.IDLE,
    (Status.PAUSED, Event.HIBERNATE): Status.HIBERNATED,
    (Status.PAUSED, Event.RESTART): Status.INITIALIZING,
    (Status.HIBERNATED, Event.RESUME): Status.INITIALIZING,
    (Status.ERROR, Event.RESTART): Status.INITIALIZING,
    **{(status, Event.FAIL): Status.ERROR for status in LIVE},
    **{(status, Event.CLOSE): Status.TERMINATED for status in LIVE},
}


class JournalState(StrEnum):
    """What became of the comparison of a session's journal with the proofs of it."""

    UNPROVEN = "unproven"
    """There is no proof that it could be compared with."""
    INTACT = "intact"
    """It is the one that was signed, and what came later."""
    ALTERED = "altered"
    """It is not the one that was signed: something was changed, removed or cut off."""


class IllegalTransition(ValueError):
    """The event cannot happen in that status; names both ends."""

    def __init__(self, status: Status, event: Event) -> None:
        self.status = status
        self.event = event
        allowed = ", ".join(sorted(e.value for s, e in _TABLE if s is status)) or "nothing"
        super().__init__(
            f"a session that is {status.value} cannot {event.value}; it allows: {allowed}"
        )


def next_status(status: Status, event: Event) -> Status:
    """Where `event` leads from `status`. Raises `IllegalTransition`."""
    try:
        return _TABLE[status, event]
    except KeyError:
        raise IllegalTransition(status, event) from None


def expand(words: list[str]) -> frozenset[Status]:
    """Statuses and group names as a set of statuses. Raises `ValueError` naming the bad word."""
    found: set[Status] = set()
    for word in words:
        if word in GROUPS:
            found |= GROUPS[word]
        else:
            try:
                found.add(Status(word))
            except ValueError:
                known = ", ".join([*GROUPS, *(s.value for s in Status)])
                raise ValueError(
                    f"unknown status {word[:100]!r}; expected one of: {known}"
                ) from None
    return frozenset(found)
