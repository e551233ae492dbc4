"""The pure core of the shim: which message goes where, and what is answered in the kernel's place.

It touches no socket and knows no time but what its ports tell it. Its invariants
(PROTOCOL, "Headers, identities, ordering"):

* every request gets exactly one busy, one idle and one reply, whoever answers;
* a reply is recorded only after that request's idle;
* a request is executed at most once, recognised by client and `msg_id`;
* what comes from the kernel is hostile: a parent counts only if it names an open request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sandcell_gateway.journal.records import Kind
from sandcell_gateway.shim.executions import Executions
from sandcell_gateway.shim.interrupts import Interrupts
from sandcell_gateway.shim.past import Past, close_input, index
from sandcell_gateway.shim.ports import Ports
from sandcell_gateway.shim.probes import Probes
from sandcell_gateway.shim.request import (
    Cause,
    Input,
    Request,
    named_executions,
    outcome,
    read_execute,
    stamped,
    strip_metadata,
)
from sandcell_gateway.shim.turns import MAX_WAITING, Turns
from sandcell_wire.execution import OUTCOME_UNKNOWN, error_content
from sandcell_wire.messages import (
    Envelope,
    Message,
    MessageError,
    envelope,
    make,
)

MAX_REMEMBERED = 65_536
"""Most request ids kept for recognising repeats."""

LATE_ANSWER = "sandcell: an answer came after its question was gone, and was dropped"
BAD_QUESTION = "sandcell: a question of your cell cannot be read and is not shown; interrupt it"
LATE_INTERRUPT = "sandcell: an interrupt came after its cell had ended, and hit nothing"

SWALLOWED = "interrupted; the interpreter gave no reply, so look at what the cell has done"
LOST_REPLY = "the cell ended without a reply of the interpreter; look at what it has done"

_CLIENT_CHANNELS = ("shell", "control", "stdin")


@dataclass
class Broker:
    """Routes between the clients and one interpreter."""

    ports: Ports
    interpreter: str
    running: bool = True
    """Whether an interpreter runs or is being started."""
    open: dict[str, Request] = field(default_factory=dict[str, Request])
    executions: Executions = field(default_factory=Executions)
    _turns: Turns = field(default_factory=Turns)
    _known: OrderedDict[tuple[str, str], None] = field(
        default_factory=OrderedDict[tuple[str, str], None]
    )
    _inputs: dict[str, Input] = field(default_factory=dict[str, Input])
    _failed_at: dict[tuple[str, str | None], int] = field(
        default_factory=dict[tuple[str, str | None], int]
    )
    _note: str = ""
    _probes: Probes = field(default_factory=Probes)
    _answers: list[Message] = field(default_factory=list[Message])
    """Answers to questions of an interpreter that is being adopted."""
    _interrupts: Interrupts = field(init=False)

    def __post_init__(self) -> None:
        self._interrupts = Interrupts(self.ports, self.open)

    @property
    def ready(self) -> bool:
        """Whether the interpreter takes requests."""
        return self._turns.ready

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
        if head.msg_id in self.open:
            raise MessageError(f"msg_id {head.msg_id} is an open request of another client")
        self._remember(client, head.msg_id)
        seq = self.ports.record(message, Kind.REQUEST, client)
        if message.channel == "stdin":
            self._input_reply(client, head, message)
        elif head.msg_type == "interrupt_request":
            self._interrupt(client, head, message)
        else:
            self._request(client, seen, head, message, seq)
        return head.msg_id

    def _remember(self, client: str, msg_id: str) -> None:
        self._known[client, msg_id] = None
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def _open(self, client: str, head: Envelope, message: Message) -> Request:
        request = Request(client, message, head, self.ports.now())
        was_active = self._executions()
        self.open[head.msg_id] = request
        if request.executes and not was_active:
            self.ports.activity(True)
        return request

    def _executions(self) -> bool:
        return any(request.executes for request in self.open.values())

    def _request(self, client: str, seen: int, head: Envelope, message: Message, seq: int) -> None:
        request = self._open(client, head, message)
        if request.executes:
            wrong = read_execute(request)
            index(self.executions, request, seq)
            if wrong:  # ipykernel would drop it, and never reply
                self._answer(request, Cause("MessageError", wrong))
                return
            if seen < self._failed_at.get((client, head.subshell_id), 0):
                self._abort(request)
                return
            if not self.running:
                self.running = True
                self.ports.wake()
        if not self.running:
            self._answer(request, Cause("KernelNotRunning", self._note or "no kernel is running"))
        elif self._turns.is_full:
            text = f"{MAX_WAITING} requests already wait for the kernel; wait for it, or interrupt"
            self._answer(request, Cause("QueueFull", text))
        else:
            self._send(self._turns.enter(request))

    def _send(self, going: Iterable[Request]) -> None:
        for request in going:
            self.ports.to_kernel(request.message)

    def _input_reply(self, client: str, head: Envelope, message: Message) -> None:
        """Deliver an answer only while its question is open: never to the next question."""
        if close_input(self._inputs, client, head):
            if self.ready:
                self.ports.to_kernel(message)
            else:
                self._answers.append(message)
        else:
            self.ports.drop(f"input_reply {head.msg_id}: no input is waited for")
            self.ports.notify(client, LATE_ANSWER)

    def _interrupt(self, client: str, head: Envelope, message: Message) -> None:
        """Interrupt the executions it names, or all; what waits before the kernel ends at once."""
        request = self._open(client, head, message)
        named = named_executions(message)
        waiting = self._turns.withdraw(
            lambda cell: cell.executes and (not named or cell.envelope.msg_id in named)
        )
        for cell in waiting:
            self._answer(cell, Cause("KeyboardInterrupt", "interrupted before it started"))
        meant = {
            name
            for name, found in self.open.items()
            if found.sent and found.runs_code and found.idle is None
        }
        if named:
            meant.intersection_update(named)
        if meant and self.ready:
            self._interrupts.ask(meant)
        elif named and not waiting and self.ready:
            self.ports.notify(client, LATE_INTERRUPT)
        self._finish(request, {"status": "ok"})

    def expired(self, msg_id: str) -> None:
        """An execution has run as long as it may."""
        request = self.open.get(msg_id)
        execution = self.executions.get(msg_id)
        if request is not None and execution is not None and request.idle is None:
            execution.timed_out = True
            self._interrupts.ask({msg_id})

    def interrupted(self) -> None:
        """The interpreter is being interrupted, by whomever."""
        self._interrupts.signalled()
        for request in self.open.values():
            self._check_reply(request)

    def _check_reply(self, request: Request) -> None:
        """Find out whether a cell that is over lost its reply to an interrupt.

        ipykernel drops the reply when SIGINT comes as the cell ends. Without an interrupt
        nobody is asked: a probe would become the parent of what threads print.
        """
        if request.lacks_reply and self._interrupts.may_have_hit(request):
            name, subshell = request.envelope.msg_id, request.envelope.subshell_id
            self.ports.to_kernel(self._probes.make(self.interpreter, name, subshell))

    def _lost_reply(self, request: Request) -> None:
        """Its reply can come no more."""
        if self._interrupts.may_have_hit(request):
            self._answer(request, Cause("KeyboardInterrupt", SWALLOWED))
        else:
            self._answer(request, Cause(OUTCOME_UNKNOWN, LOST_REPLY))

    def _lost_before(self, later: Request) -> None:
        """A reply came: cells from before it on the same shell that are over get none."""
        for request in list(self.open.values()):
            if request is later:
                return
            same = request.envelope.subshell_id == later.envelope.subshell_id
            if same and request.lacks_reply:
                self._lost_reply(request)

    # -- from the kernel ---------------------------------------------------------------

    def from_kernel(self, message: Message) -> None:
        """Take one message of the interpreter."""
        try:
            head = envelope(message)
            strip_metadata(message)
        except MessageError as error:
            self.ports.drop(f"message of the kernel on {message.channel}: {error}")
            return
        if head.parent_id in self._probes:
            self._probe_answer(head, message)
            return
        request = self.open.get(head.parent_id)
        if message.channel == "iopub":
            self._output(request, head, message)
        elif message.channel == "stdin":
            self._input_request(request, head, message)
        elif request is None or head.msg_type != request.envelope.reply_type:
            self.ports.drop(f"{head.msg_type} answers no open request ({head.parent_id!r})")
        elif request.reply is None:
            request.reply = message
            if message.channel == "shell":
                self._lost_before(request)
            self._close_if_done(request)

    def _input_request(self, request: Request | None, head: Envelope, message: Message) -> None:
        if request is None or head.msg_type != "input_request":
            self.ports.drop(f"{head.msg_type} on stdin for no open request")
            return
        try:
            content = message.content_dict()
        except MessageError as error:
            self.ports.drop(f"input_request: {error}")
            self.ports.notify(request.client, BAD_QUESTION)
            return
        asked = {request.client: head.msg_id}
        self._inputs[request.envelope.msg_id] = Input(request, content, asked)
        self.ports.record(message, Kind.KERNEL, request.client)
        self.ask_again(self.ports.present())

    def _output(self, request: Request | None, head: Envelope, message: Message) -> None:
        if head.msg_type == "status":
            self._status(request, message)
            return
        if request is not None:
            if head.msg_type == "execute_input":
                if request.echoed:
                    return
                request.echoed = True
                self.executions.started(request.envelope.msg_id, self.ports.now())
                if request.timeout is not None:
                    self.ports.limit(request.envelope.msg_id, request.timeout)
                self._interrupts.may_run(request)
            elif request.first_output is None:
                request.first_output = self.ports.now()
        self.ports.record(message, Kind.KERNEL, "")

    def _status(self, request: Request | None, message: Message) -> None:
        """Pass on the one busy and the one idle of an open request; others are forged, or ours."""
        if request is None:
            return
        state = message.content_if_any().get("execution_state")
        if state == "busy" and request.busy is None:
            request.busy = self.ports.now()
            self.ports.record(message, Kind.KERNEL, "")
            self._interrupts.may_run(request)
        elif state == "idle" and request.busy is not None and request.idle is None:
            request.idle = self.ports.now()
            seq = self.ports.record(message, Kind.KERNEL, "")
            self.executions.shown(request.envelope.msg_id, seq)
            self._close_if_done(request)
            self._check_reply(request)

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
        if request.executes:
            ended = outcome(reply, kind)
            name, now = request.envelope.msg_id, self.ports.now()
            self.executions.ended(name, now, seq, ended.status, ended.count)
            if request.stop_on_error and ended.failed:
                self._failed(request, seq)

    def _failed(self, request: Request, seq: int) -> None:
        """Abort what its client sent behind it without having seen that."""
        line = request.client, request.envelope.subshell_id
        self._failed_at[line] = seq
        for later in self._turns.withdraw(
            lambda cell: cell.executes and (cell.client, cell.envelope.subshell_id) == line
        ):
            self._abort(later)

    def _close(self, request: Request) -> None:
        self.open.pop(request.envelope.msg_id, None)
        self._interrupts.over(request)
        self._inputs.pop(request.envelope.msg_id, None)
        if request.executes and not self._executions():
            self.ports.activity(False)
        self._send(self._turns.left(request))

    # -- answers in the kernel's place ---------------------------------------------------

    def make(self, channel: str, msg_type: str, content: dict[str, Any], parent: bytes) -> Message:
        """A message in the interpreter's name."""
        return make(channel, msg_type, content, session=self.interpreter, parent_header=parent)

    def _publish(self, request: Request, msg_type: str, content: dict[str, Any]) -> None:
        message = self.make("iopub", msg_type, content, request.message.header)
        seq = self.ports.record(message, Kind.SHIM, "")
        self.executions.shown(request.envelope.msg_id, seq)

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
                request.envelope.reply_type,
                content,
                request.message.header,
            )
            self._deliver_reply(request, reply, kind)
        self._close(request)

    def _abort(self, request: Request) -> None:
        self._finish(request, {"status": "aborted"})

    def _answer(self, request: Request, cause: Cause) -> None:
        """End a request with an error that people can read."""
        error = error_content(cause.name, cause.text)
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
        self._probes.clear()
        self.running = True
        self._turns.stop()

    def waits_for_input(self) -> bool:
        """Whether a cell has asked for input and got no answer."""
        return bool(self._inputs)

    def ask_again(self, clients: Iterable[str]) -> None:
        """Put open questions to these clients, too, when the one whose cell asks is not present.

        That one may be back soon: its answer still counts, if it is the first.
        """
        present = self.ports.present()
        for waiting in self._inputs.values():
            if waiting.request.client in present:
                continue
            parent = waiting.request.message.header
            for client in sorted(set(clients) - set(waiting.asked)):
                message = self.make("stdin", "input_request", waiting.content, parent)
                waiting.asked[client] = envelope(message).msg_id
                self.ports.record(message, Kind.SHIM, client)

    def open_requests(self, client: str) -> list[str]:
        """The ids of the client's requests that have not ended."""
        return [name for name, request in self.open.items() if request.client == client]

    def became_ready(self) -> None:
        """Send what queued."""
        answers, self._answers = self._answers, []
        for message in answers:
            self.ports.to_kernel(message)
        self._send(self._turns.begin())

    def tell(self, text: str) -> None:
        """Show a line on stderr under every execution that is open."""
        for request in list(self.open.values()):
            if request.executes:
                self._publish(request, "stream", {"name": "stderr", "text": text})

    def ended(self, cause: Cause) -> None:
        """The interpreter is gone: every open request gets an end."""
        self.running = False
        self._note = cause.text
        self._turns.stop()
        self._turns.withdraw(lambda _: True)
        self._answers.clear()
        for request in list(self.open.values()):
            if request.envelope.msg_type == "interrupt_request":
                self._finish(request, {"status": "ok"})
            else:
                self._answer(request, cause)

    # -- adoption ------------------------------------------------------------------------

    def resume(self, past: Past) -> None:
        """Take over from an earlier shim; sends nothing."""
        for client, msg_id in past.known:
            self._remember(client, msg_id)
        self.open |= past.open
        for name, request in past.open.items():
            self._turns.adopt(request)
            execution = self.executions.get(name)
            if request.timeout is not None and execution is not None and execution.started:
                ran = self.ports.now() - execution.started
                self.ports.limit(name, max(0.0, request.timeout - ran))
        self._inputs |= past.inputs
        self.executions = past.executions
        self.executions.trust()
        if self._executions():
            self.ports.activity(True)

    def make_probe(self) -> Message:
        """A kernel_info request of our own; its answers reach no client."""
        return self._probes.make(self.interpreter)

    def _probe_answer(self, head: Envelope, message: Message) -> None:
        about = self._probes.answered(head, message)
        if about is None:
            return
        request = self.open.get(about)
        if request is not None and request.reply is None:
            self._lost_reply(request)
        elif not about:
            self.ports.probed(message)

    def probed(self, before: set[str]) -> None:
        """The main shell answered a probe: no request from `before` it can still run there."""
        for msg_id in before:
            request = self.open.get(msg_id)
            if request is None or not request.on_main_shell:
                continue
            text = (
                "the session's supervisor was restarted and the outcome of this request "
                "is unknown; look at its effects before you run it again"
            )
            self._answer(request, Cause(OUTCOME_UNKNOWN, text))
