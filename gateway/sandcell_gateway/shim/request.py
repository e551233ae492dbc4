"""One client's request on its way, and what its answers carry. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from sandcell_gateway.journal.records import Kind
from sandcell_wire.execution import (
    OUTCOME_UNKNOWN,
    is_silent,
    sandcell_metadata,
    stops_on_error,
    timeout_of,
)
from sandcell_wire.messages import Envelope, Message, MessageError, dumps, parse_object


@dataclass(frozen=True)
class Cause:
    """Why requests end without the kernel's answer."""

    name: str
    """The error's name in the notebook, e.g. `KernelDied`."""
    text: str


@dataclass(slots=True)
class Request:
    """One client's request from its arrival to its idle and reply. Times are Unix seconds."""

    client: str
    message: Message
    envelope: Envelope
    received: float
    stop_on_error: bool = False
    silent: bool = False
    timeout: float | None = None
    """Seconds that it may run before it is interrupted."""
    sent: bool = False
    busy: float | None = None
    first_output: float | None = None
    idle: float | None = None
    echoed: bool = False
    """The kernel's execute_input was passed on."""
    reply: Message | None = None
    """The kernel's reply, held until idle."""

    @property
    def executes(self) -> bool:
        """Whether it is a cell."""
        return self.envelope.executes

    @property
    def runs_code(self) -> bool:
        """Whether it is a cell, or a comm message, whose handlers are the user's."""
        return self.executes or not self.wants_reply

    @property
    def runs(self) -> bool:
        """Whether its code has begun: a cell echoes its input just before, unless it is silent.

        An interrupt of what is over would hit the next one.
        """
        begun = self.echoed or self.silent or not self.executes
        return self.busy is not None and self.idle is None and begun

    @property
    def lacks_reply(self) -> bool:
        """Whether it is a cell that is over, and whose reply has not come."""
        return self.executes and self.idle is not None and self.reply is None

    @property
    def on_main_shell(self) -> bool:
        """Whether it stands in the one line of what the interpreter's main thread does."""
        return self.message.channel == "shell" and not self.envelope.subshell_id

    @property
    def wants_reply(self) -> bool:
        """Whether it is over only with a reply."""
        return self.envelope.wants_reply


@dataclass(slots=True)
class Input:
    """An open `input_request`."""

    request: Request
    content: dict[str, Any]
    asked: dict[str, str]
    """Who may answer, and the id under which each was asked: the one who asked for the cell, and
    who was there when that one was not. The first answer counts."""


def read_execute(request: Request) -> str:
    """Take from an execute_request's content what matters here; what is wrong with it, if any."""
    try:
        content = request.message.content_dict()
    except MessageError as error:
        return str(error)
    request.silent = is_silent(content)
    request.stop_on_error = stops_on_error(content)
    request.timeout = timeout_of(sandcell_metadata(request.message))
    return ""


def named_executions(message: Message) -> list[str]:
    """The executions that an interrupt names; none: it is for all."""
    named: object = sandcell_metadata(message).get("interrupts")
    return [str(name) for name in cast("list[object]", named)] if isinstance(named, list) else []


@dataclass(frozen=True)
class Outcome:
    """How an execution ended, by its reply."""

    status: str
    """The reply's, or `unknown`."""
    count: object
    """The interpreter's execution count, or whatever it sent for it."""
    failed: bool


def outcome(reply: Message, kind: Kind) -> Outcome:
    """Read an execute_reply."""
    content = reply.content_if_any()
    status, failed = str(content.get("status")), content.get("status") == "error"
    if kind is Kind.SHIM and content.get("ename") == OUTCOME_UNKNOWN:
        return Outcome("unknown", None, failed)
    return Outcome(status, content.get("execution_count"), failed)


def strip_metadata(message: Message) -> None:
    """Remove from the kernel's message what only the shim may say. Raises `MessageError`."""
    if b"sandcell" in message.metadata or b"\\u" in message.metadata:
        metadata = parse_object(message.metadata, "metadata")
        if "sandcell" in metadata:
            del metadata["sandcell"]
            message.metadata = dumps(metadata)


def stamped(metadata: bytes, request: Request, now: float) -> bytes:
    """A reply's metadata with the run's stages (seconds) and stamps (Unix time)."""
    try:
        value = parse_object(metadata, "metadata")
    except MessageError:
        value = {}
    busy = request.busy if request.busy is not None else now
    idle = request.idle if request.idle is not None else now
    value["sandcell"] = {
        "stamps": {
            "received": request.received,
            "busy": busy,
            "first_output": request.first_output,
            "idle": idle,
            "replied": now,
        },
        "stages": {"queue": busy - request.received, "execute": idle - busy},
    }
    return dumps(value)
