"""What was missed appears under the first cell, with new headers, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sandcell_kernel import missed
from sandcell_kernel.answers import Answers
from sandcell_kernel.missed import Missed
from sandcell_kernel.request import Request
from sandcell_wire.messages import Message, envelope, make


class Front:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.published: list[Message] = []

    def to_front(self, channel: str, identities: Sequence[bytes], message: Message) -> None:
        raise AssertionError("nothing is answered")

    def publish(self, message: Message) -> None:
        self.published.append(message)

    def shown(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Type, parent and content."""
        heads = [envelope(message) for message in self.published]
        return [
            (head.msg_type, head.parent_id, message.content_dict())
            for head, message in zip(heads, self.published, strict=True)
        ]


def ask(msg_id: str) -> Message:
    return make("shell", "execute_request", {"code": "1"}, session="front", msg_id=msg_id)


def cell(msg_id: str) -> Request:
    message = ask(msg_id)
    return Request([b"front"], message, envelope(message))


def said(parent: str, msg_type: str, **content: Any) -> Message:
    return make("iopub", msg_type, content, session="i", parent_header=ask(parent).header)


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture
def kept(front: Front) -> Missed:
    return Missed(Answers(front, "i"))


def take(kept: Missed, message: Message, host: Request | None) -> bool:
    return kept.take(envelope(message), message, host)


def test_output_gets_the_parent_of_the_cell_that_shows_it(kept: Missed, front: Front) -> None:
    kept.expect(["lost"])
    message = said("lost", "display_data", data={"a/b": "c"}, metadata={}, transient={})
    message.buffers = [b"\x00\xff"]
    assert take(kept, message, cell("now"))
    ((msg_type, parent, content),) = front.shown()
    assert (msg_type, parent, content["data"]) == ("display_data", "now", {"a/b": "c"})
    assert front.published[0].buffers == [b"\x00\xff"]
    assert envelope(front.published[0]).msg_id != envelope(message).msg_id


def test_it_waits_for_a_cell_and_keeps_its_order(kept: Missed, front: Front) -> None:
    kept.expect(["lost", "other"])
    take(kept, said("lost", "execute_input", code="first\nsecond", execution_count=3), None)
    take(kept, said("lost", "stream", name="stdout", text="one"), None)
    take(kept, said("lost", "execute_result", data={}, metadata={}, execution_count=3), None)
    take(kept, said("lost", "error", ename="E", evalue="v", traceback=["t1", "t2"]), None)
    assert front.published == []
    kept.flush(cell("now"))
    types = [(msg_type, content.get("text")) for msg_type, _, content in front.shown()]
    assert types == [
        ("stream", "sandcell: missed output of In [3]: first…\n"),
        ("stream", "one"),
        ("display_data", None),
        ("stream", "t1\nt2\n"),
    ]
    kept.flush(cell("again"))
    assert len(front.published) == 4


def test_it_follows_until_all_have_ended_and_lets_others_pass(kept: Missed) -> None:
    kept.expect(["a", "b"])
    assert not take(kept, said("c", "stream", name="stdout", text=""), None)
    assert not take(kept, said("a", "comm_open", comm_id="x"), None)
    for name in "a", "b":
        assert kept.follows
        assert take(kept, said(name, "status", execution_state="busy"), None)
        assert take(kept, said(name, "status", execution_state="idle"), None)
        assert not take(kept, said(name, "stream", name="stdout", text="late"), None)
    assert not kept.follows


@pytest.mark.parametrize(("ids", "clears"), [(["a"], 1), (["a", "b"], 0)])
def test_one_execution_does_not_clear_anothers_output(
    kept: Missed, front: Front, ids: list[str], clears: int
) -> None:
    kept.expect(ids)
    take(kept, said("a", "clear_output", wait=False), cell("now"))
    assert len(front.published) == clears


@pytest.mark.parametrize(
    ("messages", "size"), [(3, 1 << 20), (100_000, 800)], ids=["number", "bytes"]
)
def test_what_waits_has_bounds_and_the_newest_stays(
    kept: Missed, front: Front, monkeypatch: pytest.MonkeyPatch, messages: int, size: int
) -> None:
    monkeypatch.setattr(missed, "MAX_KEPT", messages)
    monkeypatch.setattr(missed, "MAX_KEPT_BYTES", size)
    kept.expect(["a"])
    for number in range(50):
        take(kept, said("a", "stream", name="stdout", text=f"{number}"), None)
    kept.flush(cell("now"))
    notice, *rest = [content["text"] for _, _, content in front.shown()]
    assert rest[-1] == "49"
    assert 1 <= len(rest) <= 3
    assert f"{50 - len(rest)} messages before these" in notice


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"traceback": 5}', b'{"code": []}', b"\xff"])
@pytest.mark.parametrize("msg_type", ["status", "execute_input", "error", "stream", "display_data"])
def test_what_a_sandbox_makes_up_is_survived(
    kept: Missed, front: Front, msg_type: str, content: bytes
) -> None:
    kept.expect(["a"])
    message = said("a", msg_type)
    message.content = content
    for host in None, cell("now"):
        assert take(kept, message, host)
    kept.flush(cell("later"))
    assert kept.follows


def test_ends_that_were_lost_do_not_keep_anybody_waiting(kept: Missed) -> None:
    kept.expect(["ended", "runs"], [17, None])
    kept.caught_up()
    assert kept.follows, "one still runs"
    assert not take(kept, said("ended", "stream", name="stdout", text=""), None)
    assert take(kept, said("runs", "stream", name="stdout", text=""), None)
    kept.lossy = True
    kept.caught_up()
    assert not kept.follows


def test_an_older_gateway_says_no_ends(kept: Missed) -> None:
    kept.expect(["a"])
    kept.caught_up()
    assert kept.follows
