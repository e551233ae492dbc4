"""The JSON control messages that share a channel with the binary frames.

Each is one text frame, an object whose `type` names it. A receiver ignores
types and fields it does not know, so that both ends can be upgraded alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Literal, TypedDict, cast

MAX_CONTROL_BYTES = 1 << 20
"""Most bytes of one control message."""


class Close(IntEnum):
    """Why a channel was closed: codes of RFC 6455, section 7.4, and one of ours."""

    BAD_DATA = 1007
    """The other end broke the protocol; the reason says how."""
    RESTART = 1012
    """Come back, the session lives on."""
    TRY_LATER = 1013
    """There are too many."""
    UNAUTHORIZED = 4401
    """The token has expired or was revoked: come back with another one."""
    FINAL = 4404
    """The session is final or unknown; the reason is a problem's code."""


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


class Missed(TypedDict):
    """What `after=missed` replays: executions that ended, or went on, while nobody was there."""

    type: Literal["missed"]
    after: int
    """The number after which the channel goes on."""
    msg_ids: list[str]
    """In the order in which they were asked for; all that is left of them follows."""
    ends: list[int | None]
    """The number of each one's reply; None while it has none."""
    left_out: int
    """How many older ones are not among them."""


class Seen(TypedDict):
    """From the client, now and then: it has everything up to this number."""

    type: Literal["seen"]
    seq: int


class Notice(TypedDict):
    """What the client's user should know, once."""

    type: Literal["notice"]
    text: str


class Open(TypedDict):
    """The client's requests that have not ended.

    Sent when a channel has caught up, after it opened and after a `gap`. An acknowledged
    request that is not among them has ended, even if its end was not seen.
    """

    type: Literal["open"]
    msg_ids: list[str]


class StatusChanged(TypedDict):
    """The session's status changed."""

    type: Literal["status"]
    status: str
    reason: dict[str, str] | None
    interpreter: str


Control = Hello | KernelInfo | Missed | Seen | Notice | Ack | Gap | Open | StatusChanged


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
