"""The pure core of the local kernel: answer here, forward, or both.

No socket, no clock. Front ends speak ZMQ and are told apart by routing identities;
the session speaks numbered messages. Replies and input requests find their way by
`parent_header.msg_id`. PROTOCOL.md is the list of rules.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from sandcell_kernel.answers import Answers, Front
from sandcell_kernel.kernel_info import KernelInfo
from sandcell_kernel.local_cells import LineRunner, LocalCells
from sandcell_kernel.lost_ends import LostEnds
from sandcell_kernel.missed import Missed
from sandcell_kernel.request import Request
from sandcell_wire.execution import (
    KERNEL_DIED,
    KERNEL_RESTARTED,
    OUTCOME_UNKNOWN,
    has_failed,
    set_sandcell_metadata,
)
from sandcell_wire.messages import Envelope, Message, envelope, make

UNAVAILABLE = "SandboxUnavailable"
"""The error's name when the session cannot be had."""
LOST_END = (
    "outcome unknown: its end is among the messages that were lost; "
    "look at its effects before you run it again"
)
LEFT_OUT = "sandcell: {count} earlier executions were missed, too; %sandbox replay shows them\n"
ENDS = (KERNEL_DIED, KERNEL_RESTARTED)
"""Errors of cells whose interpreter has ended."""
REPLACED = "sandcell: the session's interpreter is a new one; variables from before are gone\n"
MAX_WAITING = 10_000
"""Most requests that wait for the session or for its acknowledgement."""


class Ports(Front, LineRunner, Protocol):
    """What the core asks of the world around it."""

    def to_session(self, seen: int, message: Message) -> None:
        """Send to the session; called only between `connected` and `disconnected`."""
        ...

    def want_session(self) -> None:
        """A cell came although the session could not be had: try again."""
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


class Router:
    """Routes between front ends and the session."""

    def __init__(
        self, ports: Ports, interpreter: str, info: KernelInfo, *, detaches: bool = False
    ) -> None:
        self.info = info
        self.detaches = detaches
        """The session is not ours to end: it is only left."""
        self.state = State.WAITING
        self.why = ""
        """Why the session cannot be had, when `state` is failed."""
        self.last_seq = 0
        """The number of the newest message from the session."""
        self._ports = ports
        self._answers = Answers(ports, interpreter)
        self._local = LocalCells(ports, self._answers, self._forward, self._take)
        self._requests: OrderedDict[str, Request] = OrderedDict()
        """By id: what the session has, or waits for it."""
        self._unacknowledged: OrderedDict[str, Message] = OrderedDict()
        self._unheard: set[str] = set()
        """Messages that the session gets, but whose answers no front end must see."""
        self._lost = LostEnds(self._requests, self._unacknowledged, self._send_unheard)
        self._missed = Missed(self._answers)
        self._held_interrupt: Message | None = None
        self._notice = ""
        self._untold = False
        self._end_told = False
        """A cell has failed with the end of the interpreter."""

    @property
    def interpreter(self) -> str:
        """What the interpreter's messages carry in `header.session`."""
        return self._answers.interpreter

    @interpreter.setter
    def interpreter(self, interpreter: str) -> None:
        self._answers.interpreter = interpreter

    # -- from front ends -----------------------------------------------------------------

    def from_front(self, identities: list[bytes], message: Message) -> None:
        """Take one message of a front end. Raises `MessageError` when it has no envelope."""
        request = Request(identities, message, envelope(message))
        msg_type = request.envelope.msg_type
        if msg_type == "kernel_info_request":
            self._answers.finish(request, self.info.content())
        elif msg_type == "shutdown_request":
            self._shutdown(request)
        elif msg_type == "interrupt_request":
            self._interrupt(request)
        else:
            self._take(request)

    def _take(self, request: Request) -> None:
        """Refuse, hold back, run here, or forward."""
        if self._local.hold(request):
            return
        if request.message.channel == "stdin":
            self._missed.answer(request)
        if self.state is State.FAILED and not request.executes:
            self._refuse(request)
        elif self.state is State.FAILED and self._untold:
            self._untold = False
            self._local.refuse(request, UNAVAILABLE, self.why)
        elif self._local.add(request):
            self._start_lines(request.subshell)
        else:
            self._forward(request)

    def _shutdown(self, request: Request) -> None:
        # An interrupt that a shutdown follows at once was part of it, not the user's wish.
        self._held_interrupt = None
        restart = request.message.content_dict().get("restart") is True
        self._answers.finish(request, {"status": "ok", "restart": restart})
        self._ports.shutdown(restart)

    def _forward(self, request: Request) -> None:
        if len(self._unacknowledged) >= MAX_WAITING:
            self._refuse(request, f"{MAX_WAITING} requests already wait for the session")
            return
        self._requests[request.msg_id] = request
        if request.executes and not request.silent:
            self._catch_up(request)
        self._to_session(request.msg_id, request.message)
        if self.state is State.FAILED:
            self.state = State.WAITING
            self._ports.want_session()

    def _catch_up(self, request: Request) -> None:
        """Show under a cell what there is to tell, and what was missed."""
        if self._notice:
            self._answers.say(request, self._notice)
            self._notice = ""
        self._missed.flush(request)

    def _to_session(self, msg_id: str, message: Message) -> None:
        self._unacknowledged[msg_id] = message
        if self.state is State.CONNECTED:
            self._send(msg_id, message)

    def _send(self, msg_id: str, message: Message) -> None:
        request = self._requests.get(msg_id)
        seen = self.last_seq
        if request is not None:
            request.sent = True
            # Sent again it still was asked in ignorance of what came meanwhile.
            seen = request.seen = seen if request.seen is None else request.seen
        self._ports.to_session(seen, message)

    # -- interrupts ----------------------------------------------------------------------

    def _interrupt(self, request: Request) -> None:
        """Answer at once, end what never reached the session, and name the rest to it."""
        self._answers.finish(request, {"status": "ok"})
        runs_lines = self._local.running is not None
        if runs_lines:
            self._ports.cancel_lines()
        connected = self.state is State.CONNECTED
        if not connected:
            self._end_unsent()
        meant = [r.msg_id for r in self._requests.values() if r.sent and r.on_main_shell]
        if meant or (connected and not runs_lines):
            self._pass_on(request, meant)

    def _end_unsent(self) -> None:
        """Interrupt the first cell that waits in each subshell, abort those behind it."""
        begun = {r.subshell for r in self._requests.values() if r.executes and r.sent}
        for request in [r for r in self._requests.values() if r.executes and not r.sent]:
            del self._requests[request.msg_id]
            del self._unacknowledged[request.msg_id]
            if request.subshell in begun:
                self._answers.abort(request)
            else:
                begun.add(request.subshell)
                self._answers.error(request, "KeyboardInterrupt", "interrupted before it started")
            self._local.abort(request.subshell)

    def _pass_on(self, request: Request, meant: Sequence[str]) -> None:
        """Name what the interrupt is for, so that it can never hit a later cell."""
        set_sandcell_metadata(request.message, interrupts=meant)
        if self.detaches:
            self._held_interrupt = request.message
        else:
            self._send_unheard(request.msg_id, request.message)

    def _send_unheard(self, msg_id: str, message: Message) -> None:
        self._unheard.add(msg_id)
        self._to_session(msg_id, message)

    def release_interrupt(self) -> None:
        """No shutdown followed the interrupt in time: it was meant."""
        message, self._held_interrupt = self._held_interrupt, None
        if message is not None:
            self._send_unheard(envelope(message).msg_id, message)

    @property
    def holds_interrupt(self) -> bool:
        """Whether an interrupt waits to see if a shutdown follows."""
        return self._held_interrupt is not None

    # -- `%sandbox` lines ----------------------------------------------------------------

    def _start_lines(self, subshell: str | None) -> None:
        """Run a local cell once everything before it in its subshell is done."""
        before = (r for r in self._requests.values() if r.message.channel == "shell")
        if not any(request.subshell == subshell and request.wants_reply for request in before):
            self._local.start(subshell)

    def _let_go(self, request: Request, *, failed: bool) -> None:
        """A request is over: the cell that waited for it here gets its turn, or is aborted."""
        if failed and request.executes and request.stops_on_error:
            self._local.abort(request.subshell)
        else:
            self._start_lines(request.subshell)

    def lines_output(self, msg_id: str, msg_type: str, content: Mapping[str, Any]) -> None:
        """Show a result, as a message of this type, under the cell."""
        self._local.output(msg_id, msg_type, content)

    def lines_done(self, msg_id: str, error: tuple[str, str] | None) -> None:
        """The lines are done, or failed with a name and a text: go on with the cell."""
        self._local.done(msg_id, error)

    # -- from the session ----------------------------------------------------------------

    def connected(self) -> None:
        """The channel stands: send again what was not acknowledged (repeats are recognised)."""
        self.state = State.CONNECTED
        for msg_id, message in list(self._unacknowledged.items()):
            self._send(msg_id, message)

    def replaced(self) -> None:
        """The session has another interpreter: somebody else restarted it, or it had ended.

        A cell that runs or waits is told by the session.
        """
        if not self.busy and not self._end_told:
            self.notify(REPLACED)
        self._end_told = False

    def disconnected(self) -> None:
        """The line is down; requests wait."""
        if self.state is State.CONNECTED:
            self.state = State.WAITING

    def acknowledged(self, msg_ids: Sequence[str]) -> None:
        """These requests are journaled at the other end."""
        for msg_id in msg_ids:
            self._unacknowledged.pop(msg_id, None)
            request = self._requests.get(msg_id)
            if request is not None and request.message.channel == "stdin":
                del self._requests[msg_id]  # the only messages without an idle of their own

    def from_session(self, seq: int, message: Message) -> None:
        """Take one numbered message of the session."""
        if seq <= self.last_seq:
            return
        self.last_seq = seq
        head = envelope(message)
        request = self._requests.get(head.parent_id)
        self._unacknowledged.pop(head.parent_id, None)  # who answers has it
        if head.parent_id in self._unheard:
            if message.channel != "iopub":
                self._heard(head.parent_id)
        elif message.channel == "iopub":
            self._output(request, head, message)
        elif request is None:
            if message.channel == "stdin":
                self._missed.ask(message, self._host())
            # Replies are for another kernel process, whose front end is gone.
        elif message.channel == "stdin":
            self._ports.to_front("stdin", request.identities, message)
        else:
            self._reply(request, head, message)

    def _heard(self, msg_id: str) -> None:
        """A message of ours is answered."""
        self._unheard.discard(msg_id)
        for request in self._lost.answered(msg_id):
            del self._requests[request.msg_id]
            self._answers.error(request, OUTCOME_UNKNOWN, LOST_END)
            self._let_go(request, failed=True)

    def still_open(self, msg_ids: Sequence[str]) -> None:
        """Messages were lost, and of our requests only these had not ended then."""
        self._lost.probe(msg_ids, self.interpreter)
        self._missed.caught_up()

    # -- what was missed -----------------------------------------------------------------

    def missed(self, announced: Mapping[str, Any]) -> None:
        """The session goes on with executions that nobody saw end (`control.Missed`)."""
        self.last_seq = announced["after"]
        self._missed.expect(announced["msg_ids"], announced.get("ends", ()))
        if announced.get("left_out"):
            self.notify(LEFT_OUT.format(count=announced["left_out"]))

    def gap(self, text: str) -> None:
        """Messages are lost, perhaps the ends of what was missed."""
        self._missed.lossy = True
        self.notify(text)

    @property
    def follows(self) -> bool:
        """Whether a missed execution still goes on."""
        return self._missed.follows

    def _host(self) -> Request | None:
        """The cell under which what was missed is shown."""
        cells = (r for r in self._requests.values() if r.executes and not r.silent)
        return self._local.running or next(cells, None)

    def _reply(self, request: Request, head: Envelope, message: Message) -> None:
        if head.msg_type == "execute_reply":
            self._answers.last_reply = message
            self._end_told = message.content_if_any().get("ename") in ENDS
        del self._requests[head.parent_id]
        self._answers.end(request)  # its idle may be lost
        self._ports.to_front(message.channel, request.identities, message)
        if request.subshell in self._local.subshells:
            self._let_go(request, failed=has_failed(message))

    def _output(self, request: Request | None, head: Envelope, message: Message) -> None:
        if request is None and self._missed.take(head, message, self._host()):
            return
        if head.msg_type == "status":
            state = message.content_dict().get("execution_state")
            if state == "starting":
                return  # ours was published long ago; Lab would take it for a restart
            if request is not None:
                if request.busy and state == "busy":
                    return  # published before its `%sandbox` lines ran
                if state == "busy":
                    request.busy = True
                elif state == "idle":
                    self._answers.begin(request)  # its busy may be lost
                    request.idle = True
                if request.idle and not request.wants_reply:
                    del self._requests[head.parent_id]
        self._ports.publish(message)

    # -- when the session cannot be had ---------------------------------------------------

    def _refuse(self, request: Request, why: str = "") -> None:
        """End a request with an error that says why the session cannot answer it."""
        if request.message.channel != "stdin":
            self._answers.error(request, UNAVAILABLE, why or self.why)

    def failed(self, why: str, *, lost: bool = False) -> None:
        """The session cannot be had: everything that waits ends with `why`.

        When it is `lost` the next cell is refused, too, if no cell was told: it must
        not run without its variables as if nothing had happened.
        """
        self.state = State.FAILED
        self.why = why
        self._untold = lost and not self.waits
        self._unacknowledged.clear()
        self._unheard.clear()
        self._lost.clear()
        self._missed.clear()
        self._held_interrupt = None
        waiting = list(self._requests.values())
        self._requests.clear()
        stopped: set[str | None] = set()
        for request in waiting:
            if request.executes and request.subshell in stopped:
                self._answers.abort(request)  # one error says it for all that wait in a row
            else:
                self._refuse(request)
            if request.executes and request.stops_on_error:
                stopped.add(request.subshell)
        for request in waiting:
            if request.executes:
                self._let_go(request, failed=True)
        for subshell in self._local.subshells:
            self._start_lines(subshell)

    def moved(self, why: str) -> None:
        """The session is to be another one: everything that waits for this one ends with `why`."""
        self.failed(why)
        self.state = State.WAITING
        self.last_seq = 0

    def tell(self, text: str) -> None:
        """A line on stderr under every cell that runs or waits."""
        local = self._local.running
        for request in (*self._requests.values(), *([local] if local else [])):
            if request.executes:
                self._answers.say(request, text)

    def notify(self, text: str) -> None:
        """Show lines once: under the cells that run or wait, or else under the next one."""
        if self.busy:
            self.tell(text)
        else:
            self._notice += text

    def starting(self) -> None:
        """Tell front ends that this kernel process has begun."""
        self._ports.publish(
            make("iopub", "status", {"execution_state": "starting"}, session=self.interpreter)
        )

    @property
    def failing(self) -> bool:
        """Whether the session cannot be had until a cell tries again."""
        return self.state is State.FAILED

    @property
    def busy(self) -> bool:
        """Whether any cell runs or waits, `%sandbox` lines included."""
        return self.waits or self._local.running is not None

    @property
    def reached(self) -> bool:
        """Whether messages can be sent to the session now."""
        return self.state is State.CONNECTED

    @property
    def waits(self) -> bool:
        """Whether any cell runs or waits."""
        return any(r.executes for r in self._requests.values())
