"""What the shim's core asks of the world around it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from sandcell_gateway.journal.records import Kind
from sandcell_wire.messages import Message


class Ports(Protocol):
    """What the core asks of the world around it."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def record(self, message: Message, kind: Kind, owner: str) -> int:
        """Journal a message and deliver it to those who may see it; its number."""
        ...

    def to_kernel(self, message: Message) -> None:
        """Send it on its channel."""
        ...

    def interrupt(self) -> None:
        """Interrupt what the interpreter runs."""
        ...

    def limit(self, msg_id: str, seconds: float) -> None:
        """Call `Broker.expired` with this execution after so many seconds."""
        ...

    def wake(self) -> None:
        """An execute came while no interpreter runs: start one."""
        ...

    def activity(self, active: bool) -> None:
        """The first execution opened, or the last one closed."""
        ...

    def probed(self, reply: Message) -> None:
        """The interpreter answered our probe."""
        ...

    def present(self) -> Collection[str]:
        """The clients that are connected."""
        ...

    def drop(self, what: str) -> None:
        """A message was refused; for the log."""
        ...

    def notify(self, client: str, text: str) -> None:
        """Tell one client's user."""
        ...
