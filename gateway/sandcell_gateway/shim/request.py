"""One client's request on its way, and what its answers carry. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from sandcell_wire.messages import Envelope, Message, MessageError, dumps, parse_object

STATUS_BYTES = 4096
"""A reply that fails says so within its first bytes."""


@dataclass(frozen=True)
class Cause:
    """Why requests end without the kernel's answer."""

    name: str
    """The error's name in the notebook, e.g. `KernelDied`."""
    text: str

    @property
    def traceback(self) -> list[str]:
        """As notebooks show it."""
        return [f"\x1b[0;31m{self.name}\x1b[0m: {self.text}"]


@dataclass(slots=True)
class Request:
    """One client's request from its arrival to its idle and reply. Times are Unix seconds."""

    client: str
    message: Message
    envelope: Envelope
    received: float
    stop_on_error: bool = False
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
        return self.envelope.msg_type == "execute_request"

    @property
    def wants_reply(self) -> bool:
        """Comm messages and the like are over when the kernel is idle again."""
        return self.envelope.msg_type.endswith("_request")

    @property
    def reply_type(self) -> str:
        """The type of its answer."""
        return self.envelope.msg_type.removesuffix("_request") + "_reply"


def failed(reply: Message) -> bool:
    """Whether a reply's status is `error`."""
    if b"error" not in bytes(reply.content[:STATUS_BYTES]) and len(reply.content) <= STATUS_BYTES:
        return False
    try:
        return reply.content_dict().get("status") == "error"
    except MessageError:
        return False


def sandcell_metadata(message: Message) -> dict[str, Any]:
    """What a client's kernel says to the shim in `metadata.sandcell`. Raises `MessageError`."""
    if b'"sandcell"' not in message.metadata:
        return {}
    value = parse_object(message.metadata, "metadata").get("sandcell")
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def strip_metadata(message: Message) -> None:
    """Remove from the kernel's message what only the shim may say. Raises `MessageError`."""
    if b"sandcell" in message.metadata or b"\\u" in message.metadata:
        metadata = parse_object(message.metadata, "metadata")
        if metadata.pop("sandcell", None) is not None:
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
