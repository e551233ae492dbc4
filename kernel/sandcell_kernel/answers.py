"""Answers that this kernel gives in the interpreter's place.

Each request gets one busy, one idle and one reply, whoever answers, and the reply
comes after the idle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sandcell_kernel.request import Request
from sandcell_wire.execution import error_content
from sandcell_wire.messages import Message, make


class Front(Protocol):
    """The way to the front ends."""

    def to_front(self, channel: str, identities: Sequence[bytes], message: Message) -> None:
        """Send to one front end on its shell, control or stdin channel."""
        ...

    def publish(self, message: Message) -> None:
        """Send to all front ends on iopub."""
        ...


class Answers:
    """Makes answers and sends them."""

    def __init__(self, front: Front, interpreter: str) -> None:
        self._front = front
        self.interpreter = interpreter
        """What our messages carry in `header.session`."""
        self.last_reply: Message | None = None
        """The newest `execute_reply` of the session."""

    def _make(
        self, channel: str, msg_type: str, content: Mapping[str, Any], parent: Message
    ) -> Message:
        return make(
            channel, msg_type, content, session=self.interpreter, parent_header=parent.header
        )

    def publish(self, request: Request, msg_type: str, content: Mapping[str, Any]) -> None:
        """Publish under a request."""
        self._front.publish(self._make("iopub", msg_type, content, request.message))

    def pass_on(self, request: Request, msg_type: str, message: Message) -> None:
        """Publish the content of another cell's message under a request."""
        passed = self._make("iopub", msg_type, {}, request.message)
        passed.metadata, passed.content = message.metadata, message.content
        passed.buffers = message.buffers
        self._front.publish(passed)

    def ask(self, request: Request, question: Message) -> None:
        """Put another cell's question to the front end of a request."""
        passed = Message("stdin", question.header, request.message.header, content=question.content)
        self._front.to_front("stdin", request.identities, passed)

    def say(self, request: Request, text: str) -> None:
        """Show a text on stderr under a cell."""
        self.publish(request, "stream", {"name": "stderr", "text": text})

    def begin(self, request: Request) -> None:
        """Publish busy if it was not."""
        if not request.busy:
            request.busy = True
            self.publish(request, "status", {"execution_state": "busy"})

    def end(self, request: Request) -> None:
        """Publish what is missing of busy and idle."""
        self.begin(request)
        if not request.idle:
            request.idle = True
            self.publish(request, "status", {"execution_state": "idle"})

    def finish(self, request: Request, content: Mapping[str, Any]) -> None:
        """Give what is missing of busy, idle and reply."""
        self.end(request)
        if request.wants_reply:
            channel = request.message.channel
            reply = self._make(channel, request.envelope.reply_type, content, request.message)
            self._front.to_front(channel, request.identities, reply)

    def done(self, request: Request) -> None:
        """A cell that this kernel ran itself is over."""
        content: dict[str, Any] = {"status": "ok", "execution_count": self.last_count()}
        self.finish(request, {**content, "payload": [], "user_expressions": {}})

    def abort(self, request: Request) -> None:
        """As ipykernel does with what is queued behind a failed cell."""
        self.finish(request, {"status": "aborted"})

    def error(self, request: Request, name: str, text: str) -> None:
        """End a request with an error that people can read."""
        error = error_content(name, text)
        content: dict[str, Any] = {"status": "error", **error}
        if request.executes:
            self.begin(request)
            self.publish(request, "error", error)
            count = self.last_count()
            content |= {"execution_count": count, "user_expressions": {}, "payload": []}
        self.finish(request, content)

    def last_count(self) -> int:
        """The count of the last cell that ran: a cell that did not run gets no new one."""
        if self.last_reply is None:
            return 0
        count = self.last_reply.content_if_any().get("execution_count")
        return count if isinstance(count, int) else 0
