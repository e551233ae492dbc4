"""Jupyter messages as signed ZMQ frames, checked against jupyter_client's own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from sandcell_wire.messages import (
    MAX_ENVELOPE_BYTES,
    BadSignature,
    Message,
    MessageError,
    Signer,
    envelope,
    make,
)

KEY = b"a shared secret"


def test_jupyter_client_reads_what_we_sign() -> None:
    message = make("shell", "execute_request", {"code": "1"}, session="abc")
    message.buffers = [b"\x00\x01"]
    frames = Signer(KEY).pack(message, [b"route"])
    session = Session(key=KEY)
    identities, rest = session.feed_identities([bytes(frame) for frame in frames])
    read = session.deserialize(rest)
    assert identities == [b"route"]
    assert read["content"] == {"code": "1"}
    assert read["header"]["session"] == "abc"
    assert [bytes(buffer) for buffer in read["buffers"]] == [b"\x00\x01"]


def test_we_read_what_jupyter_client_signs() -> None:
    session = Session(key=KEY)
    frames = session.serialize(session.msg("comm_msg", {"data": "é"}), ident=b"me")
    identities, message = Signer(KEY).unpack("shell", [*frames, b"buffer"])
    assert identities == [b"me"]
    assert message.content_dict() == {"data": "é"}
    assert message.buffers == [b"buffer"]
    assert envelope(message).msg_type == "comm_msg"


def test_another_key_is_refused() -> None:
    frames = Signer(b"other").pack(make("shell", "x", {}, session=""))
    with pytest.raises(BadSignature):
        Signer(KEY).unpack("shell", frames)


@pytest.mark.parametrize("part", range(2, 6))
def test_a_changed_part_is_refused(part: int) -> None:
    frames = Signer(KEY).pack(make("shell", "x", {}, session=""))
    frames[part] = bytes(frames[part]) + b" "
    with pytest.raises(BadSignature):
        Signer(KEY).unpack("shell", frames)


@given(st.lists(st.binary(max_size=30), max_size=12))
def test_garbage_frames_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        Signer(KEY).unpack("shell", frames)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"", "header is not JSON"),
        (b"[]", "header must be a JSON object, got list"),
        (b"{}", "header needs a text msg_id and msg_type"),
        (b'{"msg_id": 1, "msg_type": "x"}', "header needs a text msg_id"),
        (b" " * (MAX_ENVELOPE_BYTES + 1), f"larger than {MAX_ENVELOPE_BYTES}"),
        (b"[" * 20_000, "header is not JSON"),
    ],
)
def test_a_bad_envelope_is_named(header: bytes, says: str) -> None:
    with pytest.raises(MessageError, match=says):
        envelope(Message("shell", header))


def test_the_envelope_is_what_routing_needs() -> None:
    header = {"msg_id": "1", "msg_type": "execute_reply", "session": "s", "subshell_id": "sub"}
    parent = {"msg_id": "0", "msg_type": "execute_request"}
    read = envelope(Message("shell", json.dumps(header).encode(), json.dumps(parent).encode()))
    assert (read.msg_id, read.parent_id, read.parent_type) == ("1", "0", "execute_request")
    assert (read.session, read.subshell_id) == ("s", "sub")


def test_bytes_of_content_that_are_no_text_are_replaced_and_those_of_a_header_refused() -> None:
    message = make("iopub", "stream", {}, session="s")
    message.content = b'{"text": "a\x80"}'
    assert message.content_dict() == {"text": "a\ufffd"}
    message.header = message.header.replace(b"stream", b"str\x80am")
    with pytest.raises(MessageError, match="header is not JSON"):
        envelope(message)
