"""Whose cells are in the interpreter: those of one client at a time. Pure.

ipykernel aborts everything that queues in it when a cell fails, and an interrupt reaches only
the cell that runs. So cells of several clients never queue in it together: those of the later
client wait here, where a failure of somebody else does not reach them and their own interrupt
does. Nothing of a client overtakes what it sent before on the same shell.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sandcell_gateway.shim.request import Request

MAX_WAITING = 10_000
"""Most requests that wait for the interpreter, or for another client's cells in it."""


@dataclass(slots=True)
class Turns:
    """What waits, and whose cells are inside."""

    ready: bool = False
    """Whether the interpreter takes requests at all."""
    _waiting: deque[Request] = field(default_factory=deque[Request])
    _inside: Counter[str] = field(default_factory=Counter[str])
    """How many cells of each client are in the interpreter."""

    @property
    def is_full(self) -> bool:
        """Whether no more may wait."""
        return len(self._waiting) >= MAX_WAITING

    def enter(self, request: Request) -> list[Request]:
        """It comes; itself if it goes to the interpreter now, else nothing: it waits."""
        if self.ready and not self._is_behind(request) and self._fits(request):
            return [self._enter(request)]
        self._waiting.append(request)
        return []

    def _is_behind(self, request: Request) -> bool:
        """Whether something waits that it must not overtake: a cell is behind all others."""
        return request.on_main_shell and any(
            request.executes or waiting.client == request.client for waiting in self._waiting
        )

    def _fits(self, request: Request) -> bool:
        if not request.on_main_shell or not request.executes:
            return True
        return not self._inside.keys() - {request.client}

    def _enter(self, request: Request) -> Request:
        request.sent = True
        if request.on_main_shell and request.executes:
            self._inside[request.client] += 1
        return request

    def adopt(self, request: Request) -> None:
        """It was sent to the interpreter, or may have been, before this began."""
        self._enter(request)

    def left(self, request: Request) -> list[Request]:
        """It is over; what goes to the interpreter now."""
        if request.sent and request.on_main_shell and request.executes:
            self._inside[request.client] -= 1
            if not self._inside[request.client]:
                del self._inside[request.client]
        return self._next()

    def _next(self) -> list[Request]:
        going: list[Request] = []
        while self.ready and self._waiting and self._fits(self._waiting[0]):
            going.append(self._enter(self._waiting.popleft()))
        return going

    def begin(self) -> list[Request]:
        """The interpreter is ready; what goes to it now."""
        self.ready = True
        waiting, self._waiting = self._waiting, deque()
        return [going for request in waiting for going in self.enter(request)]

    def stop(self) -> None:
        """The interpreter takes nothing until it begins again; what waits goes on waiting."""
        self.ready = False

    def withdraw(self, wanted: Callable[[Request], bool]) -> list[Request]:
        """Take out those that are wanted: they never go to the interpreter."""
        out = [request for request in self._waiting if wanted(request)]
        if out:
            self._waiting = deque(request for request in self._waiting if not wanted(request))
        return out
