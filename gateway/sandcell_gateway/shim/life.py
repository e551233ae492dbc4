"""A session's status, why it is so, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandcell_gateway.watched import Watched
from sandcell_wire import control
from sandcell_wire.states import Event, Status, next_status

Reason = dict[str, str]


class Life:
    """Goes from status to status by the one table of transitions."""

    def __init__(
        self, interpreter: Callable[[], str], tell: Callable[[control.StatusChanged], None]
    ) -> None:
        """`tell` is called with each step; clients see busy and idle in the messages."""
        self.status = Status.INITIALIZING
        self.reason: Reason | None = None
        self.moved = Watched()
        """Told of each step."""
        self.listeners: set[Callable[[dict[str, Any], bool], None]] = set()
        """Called with each status, and whether it must be told at once."""
        self._interpreter = interpreter
        self._tell = tell

    def move(self, event: Event, reason: Reason | None = None, *, busy: bool = False) -> None:
        """A step, with why, and whether something runs then. Raises `IllegalTransition`."""
        self.status = next_status(self.status, event)
        if busy:
            self.status = next_status(self.status, Event.BUSY)
        self.reason = reason
        self.announce()

    def begin(self) -> None:
        """An interpreter is going to be started."""
        if self.status is not Status.INITIALIZING:
            self.status = next_status(self.status, Event.RESTART)
        self.reason = None

    def busy(self, runs: bool) -> None:
        """The first cell or command runs, or the last has ended."""
        event = Event.BUSY if runs else Event.DONE
        if (self.status, event) in {(Status.IDLE, Event.BUSY), (Status.ACTIVE, Event.DONE)}:
            self.status = next_status(self.status, event)
            self._report(prompt=False)

    def event(self) -> control.StatusChanged:
        """The status as a control message."""
        return control.StatusChanged(
            type="status",
            status=self.status.value,
            reason=self.reason,
            interpreter=self._interpreter(),
        )

    def announce(self) -> None:
        """Tell everybody how it is."""
        self._tell(self.event())
        self._report(prompt=True)
        self.moved.notify()

    def _report(self, *, prompt: bool) -> None:
        for listener in list(self.listeners):
            listener({**self.event(), "event": "status"}, prompt)
