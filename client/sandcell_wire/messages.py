"""Jupyter messages as bytes: envelope, construction, and the signed ZMQ form.

Only the envelope is ever parsed; content and buffers travel as they came.
Source: Jupyter messaging specification 5.5, "General message format" and
"The wire protocol" (https://jupyter-client.readthedocs.io/en/stable/messaging.html).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

PROTOCOL_VERSION = "5.4"
DELIMITER = b"<IDS|MSG>"
CHANNELS = ("shell", "control", "stdin", "iopub")

MAX_ENVELOPE_BYTES = 64 * 1024
"""Most bytes a header or parent header may have."""
MAX_IDENTITIES = 8
"""Most routing frames before the delimiter."""
MAX_PARTS = 1 << 18
"""Most frames (envelope, content and buffers) of one message. Their bytes have a bound too."""

Buffer = bytes | memoryview


class MessageError(ValueError):
    """A message that breaks the wire protocol; the text says where."""


class BadSignature(MessageError):
    """The HMAC does not fit the message: another key, or a forgery."""


@dataclass(slots=True)
class Message:
    """One Jupyter message on one channel, its parts still encoded."""

    channel: str
    header: bytes
    parent_header: bytes = b"{}"
    metadata: bytes = b"{}"
    content: Buffer = b"{}"
    buffers: list[Buffer] = field(default_factory=list[Buffer])

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return (
            len(self.header)
            + len(self.parent_header)
            + len(self.metadata)
            + len(self.content)
            + sum(map(len, self.buffers))
        )

    def content_dict(self) -> dict[str, Any]:
        """The decoded content. Raises `MessageError` if it is not a JSON object.

        ipykernel sends text that is no UTF-8 (a file's name, say) as the bytes that it was:
        each is read as U+FFFD.
        """
        return parse_object(bytes(self.content), "content", errors="replace")

    def content_if_any(self) -> dict[str, Any]:
        """The same, but empty for what is not a JSON object, as a sandbox may send it."""
        try:
            return self.content_dict()
        except MessageError:
            return {}


@dataclass(slots=True, frozen=True)
class Envelope:
    """What routing needs of a message: the parsed header and the parent's id."""

    msg_id: str
    msg_type: str
    session: str
    parent_id: str
    parent_type: str
    subshell_id: str | None

    @property
    def executes(self) -> bool:
        """Whether it is a cell."""
        return self.msg_type == "execute_request"

    @property
    def wants_reply(self) -> bool:
        """Messages like `comm_msg` have no reply: they are over when the kernel is idle again."""
        return self.msg_type.endswith("_request")

    @property
    def reply_type(self) -> str:
        """The type of its answer."""
        return self.msg_type.removesuffix("_request") + "_reply"


def parse_object(data: bytes, what: str, *, errors: str = "strict") -> dict[str, Any]:
    """Decode a JSON object. Raises `MessageError` naming `what`."""
    try:
        value = json.loads(str(data, "utf-8", errors))  # bytes would have their encoding guessed
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise MessageError(f"{what} must be a JSON object, got {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _text(header: Mapping[str, Any], key: str) -> str:
    value = header.get(key, "")
    return value if isinstance(value, str) else ""


def envelope(message: Message) -> Envelope:
    """Parse the envelope. Raises `MessageError` when it is too large or has no id or type."""
    if len(message.header) > MAX_ENVELOPE_BYTES or len(message.parent_header) > MAX_ENVELOPE_BYTES:
        raise MessageError(f"header or parent header is larger than {MAX_ENVELOPE_BYTES} bytes")
    header = parse_object(message.header, "header")
    parent: dict[str, Any] = {}
    if message.parent_header not in (b"{}", b""):
        parent = parse_object(message.parent_header, "parent_header")
    msg_id, msg_type = _text(header, "msg_id"), _text(header, "msg_type")
    if not msg_id or not msg_type:
        raise MessageError("header needs a text msg_id and msg_type")
    return Envelope(
        msg_id=msg_id,
        msg_type=msg_type,
        session=_text(header, "session"),
        parent_id=_text(parent, "msg_id"),
        parent_type=_text(parent, "msg_type"),
        subshell_id=_text(header, "subshell_id") or None,
    )


def dumps(value: object) -> bytes:
    """Compact JSON as bytes."""
    return json.dumps(value, separators=(",", ":"), default=str).encode()


def make(
    channel: str,
    msg_type: str,
    content: Mapping[str, Any],
    *,
    session: str,
    parent_header: bytes = b"{}",
    metadata: Mapping[str, Any] | None = None,
    msg_id: str | None = None,
    subshell_id: str | None = None,
) -> Message:
    """A new message in the name of `session`, with a fresh id unless one is given."""
    header = {
        "msg_id": msg_id or uuid.uuid4().hex,
        "msg_type": msg_type,
        "username": "sandcell",
        "session": session,
        "date": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "version": PROTOCOL_VERSION,
    }
    if subshell_id is not None:
        header["subshell_id"] = subshell_id
    return Message(
        channel=channel,
        header=dumps(header),
        parent_header=parent_header,
        metadata=dumps(metadata or {}),
        content=dumps(content),
    )


class Signer:
    """Packs and unpacks messages for ZMQ, signed with one connection's key.

    An empty key turns signing off, as in the specification.
    """

    def __init__(self, key: bytes) -> None:
        self._hmac = hmac.new(key, digestmod=hashlib.sha256) if key else None

    def _sign(self, parts: Sequence[Buffer]) -> bytes:
        if self._hmac is None:
            return b""
        digest = self._hmac.copy()
        for part in parts:
            digest.update(part)
        return digest.hexdigest().encode()

    def pack(self, message: Message, identities: Sequence[bytes] = ()) -> list[Buffer]:
        """The frames to send, routing `identities` first."""
        parts: list[Buffer] = [
            message.header,
            message.parent_header,
            message.metadata,
            message.content,
        ]
        return [*identities, DELIMITER, self._sign(parts), *parts, *message.buffers]

    def unpack(self, channel: str, frames: Sequence[Buffer]) -> tuple[list[bytes], Message]:
        """Split frames into routing identities and a verified message.

        Raises `MessageError` for a malformed one and `BadSignature` for a wrong HMAC.
        """
        identities: list[bytes] = []
        for frame in frames[: MAX_IDENTITIES + 1]:
            if len(frame) == len(DELIMITER) and bytes(frame) == DELIMITER:
                break
            identities.append(bytes(frame))
        else:
            raise MessageError(f"no delimiter within the first {MAX_IDENTITIES + 1} frames")
        parts = frames[len(identities) + 1 :]
        if not 5 <= len(parts) <= MAX_PARTS:
            raise MessageError(
                f"expected 5 to {MAX_PARTS} frames after the delimiter, got {len(parts)}"
            )
        signed = parts[1:5]
        if not hmac.compare_digest(self._sign(signed), bytes(parts[0])):
            raise BadSignature(f"the signature of a message on {channel} does not fit")
        header, parent_header, metadata, content = signed
        return identities, Message(
            channel, bytes(header), bytes(parent_header), bytes(metadata), content, list(parts[5:])
        )
