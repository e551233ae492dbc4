"""Interrupts: which executions they are for, and when a signal can hit these. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandcell_gateway.shim.ports import Ports
from sandcell_gateway.shim.request import Request

SIGNAL_DELAY = 5.0
"""Seconds after which an interrupt has long arrived, or never does."""


@dataclass(slots=True)
class Interrupts:
    """What is to be interrupted, and what was."""

    ports: Ports
    open: Mapping[str, Request]
    """The requests that have not ended."""
    _waiting: set[str] = field(default_factory=set[str])
    """Requests to interrupt as soon as one of them runs."""
    _signalled: float = 0
    """When the interpreter was last interrupted."""

    def ask(self, meant: set[str]) -> None:
        """Now if one of them runs, else when one does: before that an interpreter ignores it."""
        if any(self.open[name].runs for name in meant):
            self.ports.interrupt()
        else:
            self._waiting |= meant

    def may_run(self, request: Request) -> None:
        """Interrupt it if it has begun and that was asked for."""
        if request.runs and request.envelope.msg_id in self._waiting:
            self._waiting.clear()
            self.ports.interrupt()

    def over(self, request: Request) -> None:
        """It has ended."""
        self._waiting.discard(request.envelope.msg_id)

    def signalled(self) -> None:
        """The interpreter is being interrupted, by whomever."""
        self._signalled = self.ports.now()

    def may_have_hit(self, request: Request) -> bool:
        """Whether the interpreter was interrupted since it came, or just before."""
        return self._signalled > request.received - SIGNAL_DELAY
