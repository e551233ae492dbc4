"""The pure core of the shim: which message goes where, and what is answered in the kernel's place.

It touches no socket and knows no time but what its ports tell it. Its invariants
(PROTOCOL, "Headers, identities, ordering"):

* every request gets exactly one busy, one idle and one reply, whoever answers;
* a reply is recorded only after that request's idle;
* a request is executed at most once, recognised by client and `msg_id`;
* what comes from the kernel is hostile: a parent counts only if it names an open request.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandcell_gateway.shim.journal import Kind
from sandcell_gateway.shim.request import (
    Cause,
    Request,
    failed,
    sandcell_metadata,
    stamped,
    strip_metadata,
)
from sandcell_wire.messages import (
    Envelope,
    Message,
    MessageError,
    dumps,
    envelope,
    make,
    parse_object,
)

MAX_QUEUED = 10_000
"""Most requests that wait for a kernel that is not ready."""
MAX_REMEMBERED = 65_536
"""Most request ids kept for recognising repeats."""
PROBE_PREFIX = "sandcell-probe-"
"""Ids of the shim's own requests begin so; their answers reach no client."""

_CLIENT_CHANNELS = ("shell", "control", "stdin")


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

    def wake(self) -> None:
        """An execute came while no interpreter runs: start one."""
        ...

    def activity(self, active: bool) -> None:
        """The first execution opened, or the last one closed."""
        ...

    def drop(self, what: str) -> None:
        """A message was refused; for the log."""
        ...


@dataclass(slots=True)
class _Input:
    """An open `input_request`."""

    request: Request
    msg_id: str


@dataclass
class Broker:
    """Routes between the clients and one interpreter."""

    ports: Ports
    interpreter: str
    ready: bool = False
    running: bool = True
    """Whether an interpreter runs or is being started."""
    open: dict[str, Request] = field(default_factory=dict[str, Request])
    _queued: list[Request] = field(default_factory=list[Request])
    _known: OrderedDict[tuple[str, str], None] = field(
        default_factory=OrderedDict[tuple[str, str], None]
    )
    _inputs: dict[str, _Input] = field(default_factory=dict[str, _Input])
    _failed_at: dict[tuple[str, str | None], int] = field(
        default_factory=dict[tuple[str, str | None], int]
    )
    _note: str = ""

    # -- from clients ------------------------------------------------------------------

    def from_client(self, client: str, seen: int, message: Message) -> str:
        """Take one message of a client that had `seen` that number; returns its id, to be acked.

        Raises `MessageError` for one that breaks the protocol.
        """
        if message.channel not in _CLIENT_CHANNELS:
            raise MessageError(
                f"clients send on {', '.join(_CLIENT_CHANNELS)}, got {message.channel}"
            )
        head = envelope(message)
        if (client, head.msg_id) in self._known:
            return head.msg_id
        self._remember(client, head.msg_id)
        self.ports.record(message, Kind.REQUEST, client)
        if message.channel == "stdin":
            self._input_reply(client, head, message)
        elif head.msg_type == "interrupt_request":
            self._interrupt(client, head, message)
        else:
            self._request(client, seen, head, message)
        return head.msg_id

    def _remember(self, client: str, msg_id: str) -> None:
        self._known[client, msg_id] = None
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def _open(self, client: str, head: Envelope, message: Message) -> Request:
        request = Request(client, message, head, self.ports.now())
        if request.executes:
            content = message.content_dict()
            request.stop_on_error = content.get("stop_on_error", True) is not False
        was_active = self._executions()
        self.open[head.msg_id] = request
        if request.executes and not was_active:
            self.ports.activity(True)
        return request

    def _executions(self) -> bool:
        return any(request.executes for request in self.open.values())

    def _request(self, client: str, seen: int, head: Envelope, message: Message) -> None:
        request = self._open(client, head, message)
        if request.executes:
            if seen < self._failed_at.get((client, head.subshell_id), 0):
                self._abort(request)
                return
            if not self.running:
                self.running = True
                self.ports.wake()
        if self.ready:
            self._send(request)
        elif not self.running:
            self._answer(request, Cause("KernelNotRunning", self._note or "no kernel is running"))
        elif len(self._queued) >= MAX_QUEUED:
            text = f"{MAX_QUEUED} requests already wait for the kernel; wait for it, or interrupt"
            self._answer(request, Cause("QueueFull", text))
        else:
            self._queued.append(request)

    def _send(self, request: Request) -> None:
        request.sent = True
        self.ports.to_kernel(request.message)

    def _input_reply(self, client: str, head: Envelope, message: Message) -> None:
        """Deliver an answer only while its question is open: never to the next question."""
        if self._close_input(client, head):
            self.ports.to_kernel(message)
        else:
            self.ports.drop(f"input_reply {head.msg_id}: no input is waited for")

    def _close_input(self, client: str, head: Envelope) -> bool:
        """Whether a client's answer fits an open question; the question is open no longer."""
        for parent, waiting in list(self._inputs.items()):
            named = head.parent_id in ("", waiting.msg_id, parent)
            if waiting.request.client == client and named:
                del self._inputs[parent]
                return True
        return False

    def _interrupt(self, client: str, head: Envelope, message: Message) -> None:
        """Interrupt the executions it names; what still queues before the kernel is aborted."""
        request = self._open(client, head, message)
        meant = sandcell_metadata(message).get("executions")
        waiting = [queued for queued in self._queued if queued.executes]
        if waiting and not self.ready:
            self._queued = [queued for queued in self._queued if not queued.executes]
            for queued in waiting:
                self._answer(queued, Cause("KeyboardInterrupt", "interrupted before it started"))
        elif self.ready and (not meant or any(name in self.open for name in meant)):
            self.ports.interrupt()
        self._finish(request, {"status": "ok"})

    # -- from the kernel ---------------------------------------------------------------

    def from_kernel(self, message: Message) -> None:
        """Take one message of the interpreter."""
        try:
            head = envelope(message)
            strip_metadata(message)
        except MessageError as error:
            self.ports.drop(f"message of the kernel on {message.channel}: {error}")
            return
        if head.parent_id.startswith(PROBE_PREFIX):
            return
        request = self.open.get(head.parent_id)
        if message.channel == "iopub":
            self._output(request, head, message)
        elif message.channel == "stdin":
            self._input_request(request, head, message)
        elif request is None or head.msg_type != request.reply_type:
            self.ports.drop(f"{head.msg_type} answers no open request ({head.parent_id!r})")
        elif request.reply is None:
            request.reply = message
            self._close_if_done(request)

    def _input_request(self, request: Request | None, head: Envelope, message: Message) -> None:
        if request is None or head.msg_type != "input_request":
            self.ports.drop(f"{head.msg_type} on stdin for no open request")
            return
        self._inputs[request.envelope.msg_id] = _Input(request, head.msg_id)
        self.ports.record(message, Kind.KERNEL, request.client)

    def _output(self, request: Request | None, head: Envelope, message: Message) -> None:
        if head.msg_type == "status":
            self._status(request, message)
            return
        if request is not None:
            if head.msg_type == "execute_input":
                if request.echoed:
                    return
                request.echoed = True
            elif request.first_output is None:
                request.first_output = self.ports.now()
        self.ports.record(message, Kind.KERNEL, "")

    def _status(self, request: Request | None, message: Message) -> None:
        """Pass on the one busy and the one idle of an open request; others are forged, or ours."""
        try:
            state = message.content_dict().get("execution_state")
        except MessageError:
            return
        if request is None:
            return
        if state == "busy" and request.busy is None:
            request.busy = self.ports.now()
            self.ports.record(message, Kind.KERNEL, "")
        elif state == "idle" and request.busy is not None and request.idle is None:
            request.idle = self.ports.now()
            self.ports.record(message, Kind.KERNEL, "")
            self._close_if_done(request)

    def _close_if_done(self, request: Request) -> None:
        if request.idle is None or (request.wants_reply and request.reply is None):
            return
        if request.reply is not None:
            self._deliver_reply(request, request.reply, Kind.KERNEL)
        self._close(request)

    def _deliver_reply(self, request: Request, reply: Message, kind: Kind) -> None:
        if request.executes:
            reply.metadata = stamped(reply.metadata, request, self.ports.now())
        seq = self.ports.record(reply, kind, request.client)
        if request.executes and request.stop_on_error and failed(reply):
            self._failed_at[request.client, request.envelope.subshell_id] = seq

    def _close(self, request: Request) -> None:
        self.open.pop(request.envelope.msg_id, None)
        self._inputs.pop(request.envelope.msg_id, None)
        if request.executes and not self._executions():
            self.ports.activity(False)

    # -- answers in the kernel's place ---------------------------------------------------

    def make(self, channel: str, msg_type: str, content: dict[str, Any], parent: bytes) -> Message:
        """A message in the interpreter's name."""
        return make(channel, msg_type, content, session=self.interpreter, parent_header=parent)

    def _publish(self, request: Request, msg_type: str, content: dict[str, Any]) -> None:
        message = self.make("iopub", msg_type, content, request.message.header)
        self.ports.record(message, Kind.SHIM, "")

    def _finish(self, request: Request, content: dict[str, Any]) -> None:
        """Give what is missing of busy, idle and reply, and close the request."""
        if request.busy is None:
            request.busy = self.ports.now()
            self._publish(request, "status", {"execution_state": "busy"})
        if request.idle is None:
            request.idle = self.ports.now()
            self._publish(request, "status", {"execution_state": "idle"})
        if request.wants_reply:
            kind = Kind.SHIM if request.reply is None else Kind.KERNEL
            reply = request.reply or self.make(
                request.message.channel,
                request.reply_type,
                content,
                request.message.header,
            )
            self._deliver_reply(request, reply, kind)
        self._close(request)

    def _abort(self, request: Request) -> None:
        self._finish(request, {"status": "aborted"})

    def _answer(self, request: Request, cause: Cause) -> None:
        """End a request with an error that people can read."""
        error: dict[str, Any] = {
            "ename": cause.name,
            "evalue": cause.text,
            "traceback": cause.traceback,
        }
        if request.executes and request.reply is None:
            if request.busy is None:
                request.busy = self.ports.now()
                self._publish(request, "status", {"execution_state": "busy"})
            self._publish(request, "error", error)
        content = {"status": "error", **error}
        if request.executes:
            content |= {"execution_count": 0, "user_expressions": {}, "payload": []}
        self._finish(request, content)

    # -- the interpreter's life ----------------------------------------------------------

    def starting(self, interpreter: str) -> None:
        """An interpreter is being started under this id; requests queue until `became_ready`."""
        self.interpreter = interpreter
        self.running = True
        self.ready = False

    def waits_for_input(self) -> bool:
        """Whether a cell has asked for input and got no answer."""
        return bool(self._inputs)

    def became_ready(self) -> None:
        """Send what queued."""
        self.ready = True
        queued, self._queued = self._queued, []
        for request in queued:
            self._send(request)

    def tell(self, text: str) -> None:
        """Show a line on stderr under every execution that is open."""
        for request in list(self.open.values()):
            if request.executes:
                self._publish(request, "stream", {"name": "stderr", "text": text})

    def ended(self, cause: Cause, *, keep_queued: bool = False) -> None:
        """The interpreter is gone: every request that it had gets an end.

        With `keep_queued` those that never reached it wait for the next one.
        """
        self.ready = False
        self.running = keep_queued
        self._note = cause.text
        if not keep_queued:
            self._queued.clear()
        for request in list(self.open.values()):
            if keep_queued and not request.sent:
                continue
            if request.envelope.msg_type == "interrupt_request":
                self._finish(request, {"status": "ok"})
            else:
                self._answer(request, cause)

    # -- adoption ------------------------------------------------------------------------

    def restore(self, records: Iterable[tuple[Kind, str, Message]]) -> None:
        """Rebuild what is open from the journal of an earlier shim; sends nothing."""
        for kind, owner, message in records:
            head = envelope(message)
            if kind is Kind.REQUEST:
                self._remember(owner, head.msg_id)
                if message.channel != "stdin":
                    self.open[head.msg_id] = Request(
                        owner, message, head, self.ports.now(), sent=True
                    )
                else:
                    self._close_input(owner, head)
                continue
            request = self.open.get(head.parent_id)
            if request is not None:
                self._restore_answer(request, head, message)
        if self._executions():
            self.ports.activity(True)

    def _restore_answer(self, request: Request, head: Envelope, message: Message) -> None:
        if head.msg_type == "status":
            state = message.content_dict().get("execution_state")
            if state == "busy":
                request.busy = self.ports.now()
            else:
                request.idle = self.ports.now()
                if not request.wants_reply:
                    del self.open[request.envelope.msg_id]
        elif head.msg_type == "input_request":
            self._inputs[request.envelope.msg_id] = _Input(request, head.msg_id)
        elif head.msg_type == "execute_input":
            request.echoed = True
        elif head.msg_type == request.reply_type:
            del self.open[request.envelope.msg_id]

    def make_probe(self) -> Message:
        """A kernel_info request of our own; its answers reach no client."""
        message = make("shell", "kernel_info_request", {}, session=self.interpreter)
        header = parse_object(message.header, "header")
        header["msg_id"] = PROBE_PREFIX + uuid.uuid4().hex
        message.header = dumps(header)
        return message

    def probed(self, before: set[str]) -> None:
        """The main shell answered a probe: no request from `before` it can still run there."""
        for msg_id in before:
            request = self.open.get(msg_id)
            if (
                request is None
                or request.envelope.subshell_id
                or request.message.channel != "shell"
            ):
                continue
            text = (
                "the session's supervisor was restarted and the outcome of this request "
                "is unknown; look at its effects before you run it again"
            )
            self._answer(request, Cause("OutcomeUnknown", text))
