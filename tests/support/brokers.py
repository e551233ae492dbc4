"""The shim's core between lists in the place of journal, clients and kernel."""

from __future__ import annotations

from typing import Any

from sandcell_gateway.journal.records import Kind
from sandcell_gateway.shim.broker import Broker
from sandcell_wire.messages import Message, envelope, make


class World:
    """A list in the place of journal, clients and kernel."""

    def __init__(self, *, ready: bool = True) -> None:
        self.time = 100.0
        self.records: list[tuple[Message, Kind, str]] = []
        self.sent: list[Message] = []
        self.woken = 0
        self.interrupts = 0
        self.active: list[bool] = []
        self.dropped: list[str] = []
        self.clients = {"a", "b"}
        self.notices: list[tuple[str, str]] = []
        self.probes: list[Message] = []
        self.limits: list[tuple[str, float]] = []
        self.broker = Broker(self, "interp")
        if ready:
            self.broker.starting("interp")
            self.broker.became_ready()

    def now(self) -> float:
        self.time += 1
        return self.time

    def record(self, message: Message, kind: Kind, owner: str) -> int:
        self.records.append((message, kind, owner))
        return len(self.records)

    def to_kernel(self, message: Message) -> None:
        self.sent.append(message)

    def interrupt(self) -> None:
        self.interrupts += 1
        self.broker.interrupted()

    def limit(self, msg_id: str, seconds: float) -> None:
        self.limits.append((msg_id, seconds))

    def wake(self) -> None:
        self.woken += 1

    def activity(self, active: bool) -> None:
        self.active.append(active)

    def probed(self, reply: Message) -> None:
        self.probes.append(reply)

    def notify(self, client: str, text: str) -> None:
        self.notices.append((client, text))

    def present(self) -> set[str]:
        return self.clients

    def drop(self, what: str) -> None:
        self.dropped.append(what)

    # what a client sees

    def seen(self, client: str = "a") -> list[str]:
        shown = []
        for message, kind, owner in self.records:
            if kind is Kind.REQUEST or owner not in ("", client):
                continue
            head = envelope(message)
            state = message.content_dict().get("execution_state", "")
            shown.append(f"{head.msg_type}:{state}" if state else head.msg_type)
        return shown

    def last(self, msg_type: str) -> dict[str, Any]:
        found = [m for m, k, _ in self.records if envelope(m).msg_type == msg_type]
        return found[-1].content_dict()

    # what clients and the kernel do

    def ask(
        self,
        msg_type: str = "execute_request",
        client: str = "a",
        *,
        seen: int = 10**9,
        channel: str = "shell",
        **content: Any,
    ) -> Message:
        message = make(channel, msg_type, content, session="client")
        self.broker.from_client(client, seen, message)
        return message

    def kernel(self, channel: str, msg_type: str, parent: Message, **content: Any) -> Message:
        message = make(channel, msg_type, content, session="interp", parent_header=parent.header)
        self.broker.from_kernel(message)
        return message

    def run(self, request: Message, status: str = "ok") -> None:
        """What ipykernel does: the reply leaves before the idle."""
        self.kernel("iopub", "status", request, execution_state="busy")
        reply = envelope(request).msg_type.replace("_request", "_reply")
        self.kernel(request.channel, reply, request, status=status)
        self.kernel("iopub", "status", request, execution_state="idle")
