"""How far a channel has told of one execution."""

from __future__ import annotations

from typing import Any

from sandcell_gateway.sessions.code import Progress
from sandcell_wire import control, frames
from sandcell_wire.messages import Message, make

ID = "an-execution"
REQUEST = make("shell", "execute_request", {}, session="c", msg_id=ID)
OTHER = make("shell", "execute_request", {}, session="c", msg_id="another")


def frame(seq: int, message: Message) -> bytes:
    return frames.encode(seq, message)


def of(parent: Message, msg_type: str, channel: str = "iopub", **content: Any) -> Message:
    return make(channel, msg_type, content, session="k", parent_header=parent.header)


def test_only_what_this_execution_shows_is_told() -> None:
    progress = Progress(ID, 3)
    assert progress.take(frame(4, of(OTHER, "stream", text="theirs"))) is None
    assert progress.take(frame(5, of(REQUEST, "status", execution_state="busy"))) is None
    told = progress.take(frame(6, of(REQUEST, "stream", name="stdout", text="mine")))
    assert told is not None
    assert (told.seq, told.content) == (6, {"name": "stdout", "text": "mine"})
    assert progress.take(frame(7, of(OTHER, "execute_reply", "shell", status="ok"))) is None
    assert not progress.has_ended()
    assert progress.take(frame(8, of(REQUEST, "execute_reply", "shell", status="ok"))) is None
    assert progress.has_ended()
    assert progress.seen == 8


def test_an_end_that_was_dropped_is_known() -> None:
    progress = Progress(ID, 3)
    progress.take(control.dump(control.Open(type="open", msg_ids=[ID])))
    assert not progress.has_ended()
    gap = control.Gap(type="gap", first=4, last=9, reason="dropped")
    progress.take(control.dump(gap))
    progress.take(control.dump(control.Open(type="open", msg_ids=[])))
    assert progress.has_ended()
    assert progress.lost == 6


def test_what_cannot_be_read_is_passed_over() -> None:
    progress = Progress(ID, 3)
    broken = of(REQUEST, "stream")
    broken.content = b"[1, 2"
    assert progress.take(frame(4, broken)) is None
    assert progress.seen == 4
