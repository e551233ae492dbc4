"""The pure core of the local kernel: answer here, forward, or both.

No socket, no clock. Front ends speak ZMQ and are told apart by routing identities;
the session speaks numbered messages. Replies and input requests find their way by
`parent_header.msg_id`. PROTOCOL.md is the list of rules.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from sandcell_kernel.cells import LeadingLines, leading_lines
from sandcell_kernel.kernel_info import KernelInfo
from sandcell_wire.messages import (
    Envelope,
    Message,
    MessageError,
    dumps,
    envelope,
    make,
    parse_object,
)

MAX_WAITING = 10_000
"""Most requests that wait for the session or for its acknowledgement."""


class Ports(Protocol):
    """What the core asks of the world around it."""

    def to_front(self, channel: str, identities: Sequence[bytes], message: Message) -> None:
        """Send to one front end on its shell, control or stdin channel."""
        ...

    def publish(self, message: Message) -> None:
        """Send to all front ends on iopub."""
        ...

    def to_session(self, seen: int, message: Message) -> None:
        """Send to the session; called only between `connected` and `disconnected`."""
        ...

    def want_session(self) -> None:
        """A cell came although the session could not be had: try again."""
        ...

    def run_lines(self, msg_id: str, lines: Sequence[str]) -> None:
        """Run a cell's `%sandbox` lines; `lines_output` and `lines_done` tell how it went."""
        ...

    def cancel_lines(self) -> None:
        """The user interrupts: end the lines that run."""
        ...

    def shutdown(self, restart: bool) -> None:
        """The front end ended this kernel; the reply is on its way."""
        ...


class State(Enum):
    """How the session can be reached."""

    WAITING = "waiting"
    """Being made, or the line is down and will be up again: requests wait."""
    CONNECTED = "connected"
    FAILED = "failed"
    """Cannot be had; a cell makes us try again."""


@dataclass(slots=True)
class _Open:
    """A front end's request until its reply was delivered."""

    identities: list[bytes]
    message: Message
    envelope: Envelope
    busy: bool = False
    idle: bool = False


@dataclass(slots=True)
class _LocalCell:
    """A cell with `%sandbox` lines, and what came after it in the same subshell."""

    request: _Open
    leading: LeadingLines
    running: bool = False
    held: list[_Open] = field(default_factory=list[_Open])


@dataclass
class Router:
    """Routes between front ends and the session."""

    ports: Ports
    interpreter: str
    info: KernelInfo
    detaches: bool = False
    """The session is not ours to end: it is only left."""
    state: State = State.WAITING
    last_seq: int = 0
    """The number of the newest message from the session."""
    _notice: str = ""
    _untold: bool = False
    why: str = ""
    """Why the session cannot be had, when `state` is failed."""
    _open: OrderedDict[str, _Open] = field(default_factory=OrderedDict[str, _Open])
    _unacknowledged: OrderedDict[str, Message] = field(default_factory=OrderedDict[str, Message])
    _last_reply: Message | None = None
    _held_interrupt: Message | None = None
    _local: dict[str | None, _LocalCell] = field(default_factory=dict[str | None, _LocalCell])

    # -- from front ends -----------------------------------------------------------------

    def from_front(self, identities: list[bytes], message: Message) -> None:
        """Take one message of a front end. Raises `MessageError` when it has no envelope."""
        head = envelope(message)
        if head.msg_type == "kernel_info_request":
            self._answer(identities, message, head, self.info.content())
        elif head.msg_type == "shutdown_request":
            self._shutdown(identities, message, head)
        else:
            self._take(_Open(identities, message, head))

    def _take(self, request: _Open) -> None:
        """Refuse, hold back, run here, or forward."""
        head = request.envelope
        local = self._local.get(head.subshell_id)
        if local is not None and request.message.channel == "shell":
            local.held.append(request)
        elif head.msg_type == "interrupt_request" and self._runs_lines():
            self._finish(request, {"status": "ok"})
            self.ports.cancel_lines()
        elif self._must_refuse(head):
            self._refuse(request)
        elif (leading := _leading_lines(request)) is not None:
            self._local[head.subshell_id] = _LocalCell(request, leading)
            self._start_lines(head.subshell_id)
        else:
            self._forward(request)

    def _shutdown(self, identities: list[bytes], message: Message, head: Envelope) -> None:
        # An interrupt that a shutdown follows at once was part of it, not the user's wish.
        self._held_interrupt = None
        restart = message.content_dict().get("restart") is True
        self._answer(identities, message, head, {"status": "ok", "restart": restart})
        self.ports.shutdown(restart)

    def _must_refuse(self, head: Envelope) -> bool:
        if self.state is not State.FAILED:
            return False
        if head.msg_type != "execute_request":
            return True
        untold, self._untold = self._untold, False
        return untold

    def _forward(self, request: _Open) -> None:
        message, head = request.message, request.envelope
        if len(self._unacknowledged) >= MAX_WAITING:
            self._refuse(request, f"{MAX_WAITING} requests already wait for the session")
            return
        self._open[head.msg_id] = request
        if head.msg_type == "interrupt_request":
            message.metadata = self._with_executions(message.metadata)
            if self.detaches:
                self._held_interrupt = message
                return
        if head.msg_type == "execute_request" and self._notice:
            self._publish(request, "stream", {"name": "stderr", "text": self._notice})
            self._notice = ""
        self._to_session(head.msg_id, message)
        if self.state is State.FAILED:
            self.state = State.WAITING
            self.ports.want_session()

    def release_interrupt(self) -> None:
        """No shutdown followed the interrupt in time: it was meant."""
        message, self._held_interrupt = self._held_interrupt, None
        if message is not None:
            self._to_session(envelope(message).msg_id, message)

    @property
    def holds_interrupt(self) -> bool:
        """Whether an interrupt waits to see if a shutdown follows."""
        return self._held_interrupt is not None

    def _with_executions(self, metadata: bytes) -> bytes:
        """Name what the interrupt is for, so that it can never hit a later cell."""
        value = parse_object(metadata, "metadata")
        running = [
            msg_id
            for msg_id, request in self._open.items()
            if request.envelope.msg_type == "execute_request"
        ]
        value["sandcell"] = {"executions": running}
        return dumps(value)

    def _to_session(self, msg_id: str, message: Message) -> None:
        self._unacknowledged[msg_id] = message
        if self.state is State.CONNECTED:
            self.ports.to_session(self.last_seq, message)

    # -- `%sandbox` lines ----------------------------------------------------------------

    def _runs_lines(self) -> bool:
        return any(cell.running for cell in self._local.values())

    def _start_lines(self, subshell: str | None) -> None:
        """Run a local cell once everything before it in its subshell is done."""
        cell = self._local.get(subshell)
        if cell is None or cell.running:
            return
        before = (r for r in self._open.values() if r.message.channel == "shell")
        if any(request.envelope.subshell_id == subshell for request in before):
            return
        cell.running = True
        cell.request.busy = True
        self._publish(cell.request, "status", {"execution_state": "busy"})
        if cell.leading.alone:
            code = cell.request.message.content_dict().get("code", "")
            content = {"code": code, "execution_count": self._last_count()}
            self._publish(cell.request, "execute_input", content)
        self.ports.run_lines(cell.request.envelope.msg_id, cell.leading.lines)

    def lines_output(self, msg_id: str, content: Mapping[str, Any]) -> None:
        """Show a result (the content of a `display_data`) under the cell."""
        for cell in self._local.values():
            if cell.request.envelope.msg_id == msg_id:
                self._publish(cell.request, "display_data", content)

    def lines_done(self, msg_id: str, error: tuple[str, str] | None) -> None:
        """The lines are done, or failed with a name and a text: go on with the cell."""
        for subshell, cell in list(self._local.items()):
            if cell.request.envelope.msg_id == msg_id:
                del self._local[subshell]
                self._end_lines(cell, error)

    def _end_lines(self, cell: _LocalCell, error: tuple[str, str] | None) -> None:
        request, held = cell.request, cell.held
        if error is not None:
            self._error(request, *error)
            if request.message.content_dict().get("stop_on_error", True) is not False:
                held = self._abort_executions(held)
        elif cell.leading.alone:
            count = self._last_count()
            content: dict[str, Any] = {"status": "ok", "execution_count": count}
            self._finish(request, {**content, "payload": [], "user_expressions": {}})
        else:
            metadata = parse_object(request.message.metadata, "metadata")
            metadata["sandcell"] = {"lines_done": len(cell.leading.lines)}
            request.message.metadata = dumps(metadata)
            self._forward(request)
        for waiting in held:
            self._take(waiting)

    def _abort_executions(self, held: list[_Open]) -> list[_Open]:
        """As ipykernel does with what is queued behind a failed cell; the rest stays."""
        kept: list[_Open] = []
        for request in held:
            if request.envelope.msg_type == "execute_request":
                self._finish(request, {"status": "aborted"})
            else:
                kept.append(request)
        return kept

    # -- from the session ----------------------------------------------------------------

    def connected(self) -> None:
        """The channel stands: send again what was not acknowledged (repeats are recognised)."""
        self.state = State.CONNECTED
        for message in list(self._unacknowledged.values()):
            self.ports.to_session(self.last_seq, message)

    def disconnected(self) -> None:
        """The line is down; requests wait."""
        if self.state is State.CONNECTED:
            self.state = State.WAITING

    def acknowledged(self, msg_ids: Sequence[str]) -> None:
        """These requests are journaled at the other end."""
        for msg_id in msg_ids:
            self._unacknowledged.pop(msg_id, None)
            request = self._open.get(msg_id)
            if request is not None and _ends_unanswered(request):
                del self._open[msg_id]

    def from_session(self, seq: int, message: Message) -> None:
        """Take one numbered message of the session."""
        if seq <= self.last_seq:
            return
        self.last_seq = seq
        head = envelope(message)
        request = self._open.get(head.parent_id)
        self._unacknowledged.pop(head.parent_id, None)  # who answers has it
        if message.channel == "iopub":
            self._output(request, head, message)
        elif request is None:
            return  # another kernel process asked; its front end is gone
        elif message.channel == "stdin":
            self.ports.to_front("stdin", request.identities, message)
        else:
            if head.msg_type == "execute_reply":
                self._last_reply = message
            del self._open[head.parent_id]
            self.ports.to_front(message.channel, request.identities, message)
            self._start_lines(request.envelope.subshell_id)

    def _output(self, request: _Open | None, head: Envelope, message: Message) -> None:
        if head.msg_type == "status":
            state = message.content_dict().get("execution_state")
            if state == "starting":
                return  # ours was published long ago; Lab would take it for a restart
            if request is not None:
                if request.busy and state == "busy":
                    return  # published before its `%sandbox` lines ran
                request.busy = request.busy or state == "busy"
                request.idle = request.idle or state == "idle"
        self.ports.publish(message)

    # -- answers given here ----------------------------------------------------------------

    def _make(
        self, channel: str, msg_type: str, content: Mapping[str, Any], parent: Message
    ) -> Message:
        return make(
            channel, msg_type, content, session=self.interpreter, parent_header=parent.header
        )

    def _publish(self, request: _Open, msg_type: str, content: Mapping[str, Any]) -> None:
        self.ports.publish(self._make("iopub", msg_type, content, request.message))

    def _answer(
        self,
        identities: list[bytes],
        message: Message,
        head: Envelope,
        content: Mapping[str, Any],
    ) -> None:
        self._finish(_Open(identities, message, head), content)

    def _finish(self, request: _Open, content: Mapping[str, Any]) -> None:
        """Give what is missing of busy, idle and reply."""
        if not request.busy:
            self._publish(request, "status", {"execution_state": "busy"})
        if not request.idle:
            self._publish(request, "status", {"execution_state": "idle"})
        if request.envelope.msg_type.endswith("_request"):
            reply_type = request.envelope.msg_type.removesuffix("_request") + "_reply"
            channel = request.message.channel
            reply = self._make(channel, reply_type, content, request.message)
            self.ports.to_front(channel, request.identities, reply)

    def _refuse(self, request: _Open, why: str = "") -> None:
        """End a request with an error that says why the session cannot answer it."""
        if request.envelope.msg_type == "interrupt_request":
            self._finish(request, {"status": "ok"})
        else:
            self._error(request, "SandboxUnavailable", why or self.why)

    def _error(self, request: _Open, name: str, text: str) -> None:
        error = {
            "ename": name,
            "evalue": text,
            "traceback": [f"\x1b[0;31m{name}\x1b[0m: {text}"],
        }
        content: dict[str, Any] = {"status": "error", **error}
        if request.envelope.msg_type == "execute_request":
            if not request.busy:
                request.busy = True
                self._publish(request, "status", {"execution_state": "busy"})
            self._publish(request, "error", error)
            count = self._last_count()
            content |= {"execution_count": count, "user_expressions": {}, "payload": []}
        self._finish(request, content)

    def _last_count(self) -> int:
        """The count of the last cell that ran: a cell that did not run gets no new one."""
        if self._last_reply is None:
            return 0
        try:
            count = self._last_reply.content_dict().get("execution_count")
        except MessageError:
            return 0
        return count if isinstance(count, int) else 0

    def failed(self, why: str, *, lost: bool = False) -> None:
        """The session cannot be had: everything that waits ends with `why`.

        When it is `lost` the next cell is refused, too, if no cell was told: it must
        not run without its variables as if nothing had happened.
        """
        self.state = State.FAILED
        self.why = why
        self._untold = lost and not self.waits
        self._unacknowledged.clear()
        waiting = list(self._open.values())
        self._open.clear()
        for request in waiting:
            self._refuse(request)
        for subshell in list(self._local):
            self._start_lines(subshell)

    def tell(self, text: str) -> None:
        """A line on stderr under every cell that runs or waits."""
        for request in self._open.values():
            if request.envelope.msg_type == "execute_request":
                self._publish(request, "stream", {"name": "stderr", "text": text})

    def notify(self, text: str) -> None:
        """Show lines once: under the cells that run or wait, or else under the next one."""
        if self.waits:
            self.tell(text)
        else:
            self._notice += text

    def starting(self) -> None:
        """Tell front ends that this kernel process has begun."""
        self.ports.publish(
            make("iopub", "status", {"execution_state": "starting"}, session=self.interpreter)
        )

    @property
    def waits(self) -> bool:
        """Whether any cell runs or waits."""
        return any(r.envelope.msg_type == "execute_request" for r in self._open.values())


def _leading_lines(request: _Open) -> LeadingLines | None:
    message = request.message
    if request.envelope.msg_type != "execute_request" or b"%sandbox" not in bytes(message.content):
        return None
    code = message.content_dict().get("code", "")
    return leading_lines(code) if isinstance(code, str) else None


def _ends_unanswered(request: _Open) -> bool:
    """Messages like `comm_msg` and `input_reply` have no reply to wait for."""
    return not request.envelope.msg_type.endswith("_request")
