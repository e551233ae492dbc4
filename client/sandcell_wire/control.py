"""The JSON control messages that share a channel with the binary frames.

Each is one text frame, an object whose `type` names it. A receiver ignores
types and fields it does not know, so that both ends can be upgraded alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

MAX_CONTROL_BYTES = 1 << 20
"""Most bytes of one control message."""


class Hello(TypedDict):
    """First message of the gateway on every channel."""

    type: Literal["hello"]
    seq: int
    """The journal's newest number when the channel opened."""
    oldest: int
    """The oldest number that can still be replayed."""
    session: str
    """The session's id."""
    interpreter: str
    """What the interpreter's messages carry in `header.session`."""
    status: str
    reason: dict[str, str] | None
    isolated: bool
    """False when the engine isolates nothing from the host."""
    engine: str


class KernelInfo(TypedDict):
    """The interpreter's own kernel_info reply, once it is known."""

    type: Literal["kernel_info"]
    content: dict[str, Any]


class Ack(TypedDict):
    """These requests are journaled; the client need not send them again."""

    type: Literal["ack"]
    msg_ids: list[str]


class Gap(TypedDict):
    """Numbers that can not be delivered, and why."""

    type: Literal["gap"]
    first: int
    last: int
    reason: str


class StatusChanged(TypedDict):
    """The session's status changed."""

    type: Literal["status"]
    status: str
    reason: dict[str, str] | None
    interpreter: str


Control = Hello | KernelInfo | Ack | Gap | StatusChanged


class ControlError(ValueError):
    """A text frame that is not a control message."""


def dump(message: Control | Mapping[str, Any]) -> str:
    """One control message as text."""
    return json.dumps(message, separators=(",", ":"))


def load(text: str) -> dict[str, Any]:
    """Parse one control message. Raises `ControlError` saying what is wrong."""
    if len(text) > MAX_CONTROL_BYTES:
        raise ControlError(f"a control message has at most {MAX_CONTROL_BYTES} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"a control message is JSON: {error}") from error
    message = cast(dict[str, Any], value) if isinstance(value, dict) else {}
    if not isinstance(message.get("type"), str):
        raise ControlError("a control message is an object with a text field `type`")
    return message
