"""The channel frame: nothing is lost or invented, garbage is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)

from sandcell_wire import frames
from sandcell_wire.messages import CHANNELS, Message

objects = st.dictionaries(st.text(max_size=8), st.text(max_size=20)).map(
    lambda value: json.dumps(value).encode()
)
messages = st.builds(
    Message,
    channel=st.sampled_from(CHANNELS),
    header=objects,
    parent_header=objects,
    metadata=objects,
    content=objects,
    buffers=st.lists(st.binary(max_size=200), max_size=5),
)


def parts(message: Message) -> list[bytes]:
    return [
        message.channel.encode(),
        message.header,
        message.parent_header,
        message.metadata,
        bytes(message.content),
        *(bytes(buffer) for buffer in message.buffers),
    ]


@given(st.integers(0, 2**64 - 1), messages)
def test_what_goes_in_comes_out(seq: int, message: Message) -> None:
    number, decoded = frames.decode(frames.encode(seq, message))
    assert number == seq
    assert parts(decoded) == parts(message)


@given(messages)
def test_the_layout_is_the_one_jupyter_server_reads_and_writes(message: Message) -> None:
    theirs = serialize_msg_to_ws_v1(parts(message)[1:], message.channel)
    assert frames.encode(7, message)[frames.SEQUENCE_BYTES :] == theirs
    channel, read = deserialize_msg_from_ws_v1(frames.encode(7, message)[frames.SEQUENCE_BYTES :])
    assert [channel.encode(), *map(bytes, read)] == parts(message)


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_is_a_frame(data: bytes) -> None:
    try:
        seq, message = frames.decode(data)
    except frames.FrameError:
        return
    assert frames.encode(seq, message) == data


@given(messages, st.data())
def test_a_damaged_frame_never_reads_outside_itself(message: Message, data: st.DataObject) -> None:
    frame = bytearray(frames.encode(1, message))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        _, decoded = frames.decode(bytes(frame))
    except frames.FrameError:
        return
    assert sum(map(len, parts(decoded))) <= len(frame)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: f[:4], "at least 8 bytes"),
        (lambda f: f[:12], "before its offset count"),
        (lambda f: f[:30], "before its 6 offsets"),
        (lambda f: f[:-1], "offsets must span"),
        (lambda f: f.replace(b"shell", b"shall"), "expected a channel of"),
        (lambda f: f[:8] + b"\xff" * 8 + f[16:], "expected 6 to 262144 offsets"),
    ],
)
def test_the_error_says_where_the_frame_breaks(damage, says: str) -> None:  # type: ignore[no-untyped-def]
    frame = frames.encode(1, Message("shell", b'{"a":1}'))
    with pytest.raises(frames.FrameError, match=says):
        frames.decode(damage(frame))
