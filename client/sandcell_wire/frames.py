"""The binary channel frame: a sequence number, then the Jupyter v1 layout.

    uint64 sequence
    uint64 count, then `count` uint64 offsets from the layout's start
    channel, header, parent_header, metadata, content, buffers…

From the gateway the sequence is the journal's number of the message. From a client
it is the number of the last frame that the client had seen when it sent this one,
so that a request sent in ignorance of an error can be told from one sent in spite of it.

All integers are little-endian. The layout after the sequence number is exactly
`v1.kernel.websocket.jupyter.org` (jupyter_server, "WebSocket kernel wire protocols").
"""

from __future__ import annotations

import struct
from itertools import pairwise

from sandcell_wire.messages import CHANNELS, MAX_PARTS, Buffer, Message

SUBPROTOCOL = "v1.channels.sandcell"
"""WebSocket subprotocol of these frames; text frames are JSON control (`control`)."""

SEQUENCE_BYTES = 8
MAX_FRAME_BYTES = 1 << 30
"""Most bytes of one frame, and so of one message."""

_U64 = struct.Struct("<Q")
_FIXED_PARTS = 5  # channel, header, parent_header, metadata, content


class FrameError(ValueError):
    """A frame that breaks the layout; the text says where."""


def encode(sequence: int, message: Message) -> bytes:
    """One frame with its `sequence` number."""
    parts: list[Buffer] = [
        message.channel.encode(),
        message.header,
        message.parent_header,
        message.metadata,
        message.content,
        *message.buffers,
    ]
    count = len(parts) + 1
    offset = 8 * (count + 1)
    numbers = [sequence, count, offset]
    for part in parts:
        offset += part.nbytes if isinstance(part, memoryview) else len(part)
        numbers.append(offset)
    return b"".join((struct.pack(f"<{len(numbers)}Q", *numbers), *parts))


def sequence_of(frame: Buffer) -> int:
    """The sequence number alone. Raises `FrameError` for a frame too short to have one."""
    if len(frame) < SEQUENCE_BYTES:
        raise FrameError(f"a frame has at least {SEQUENCE_BYTES} bytes, got {len(frame)}")
    return int(_U64.unpack_from(frame)[0])


def decode(frame: Buffer) -> tuple[int, Message]:
    """Split a frame. Content and buffers are views into it, not copies.

    Raises `FrameError` when offsets are out of order or bounds, or the channel is unknown.
    """
    sequence = sequence_of(frame)
    layout = memoryview(frame)[SEQUENCE_BYTES:]
    if len(layout) < 8:
        raise FrameError("the frame ends before its offset count")
    (count,) = _U64.unpack_from(layout)
    if not _FIXED_PARTS + 1 <= count <= MAX_PARTS:
        raise FrameError(f"expected {_FIXED_PARTS + 1} to {MAX_PARTS} offsets, got {count}")
    if len(layout) < 8 * (count + 1):
        raise FrameError(f"the frame ends before its {count} offsets")
    offsets = struct.unpack_from(f"<{count}Q", layout, 8)
    if offsets[0] != 8 * (count + 1) or offsets[-1] != len(layout):
        raise FrameError(
            f"offsets must span bytes {8 * (count + 1)} to {len(layout)}, "
            f"got {offsets[0]} to {offsets[-1]}"
        )
    if any(a > b for a, b in pairwise(offsets)):
        raise FrameError("offsets must not decrease")
    parts = [layout[a:b] for a, b in pairwise(offsets)]
    channel = bytes(parts[0]).decode("ascii", "replace")
    if channel not in CHANNELS:
        raise FrameError(f"expected a channel of {', '.join(CHANNELS)}, got {channel[:20]!r}")
    header, parent_header, metadata = (bytes(part) for part in parts[1:4])
    return sequence, Message(channel, header, parent_header, metadata, parts[4], list(parts[5:]))
