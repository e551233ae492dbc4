"""What a client's channel sends: the journal from a number on, and one `gap` for what is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from sandcell_gateway.journal import journal as module
from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind
from sandcell_gateway.shim.channels import Channel
from sandcell_wire import control, frames
from sandcell_wire.messages import Message


class Socket:
    """Takes everything, or waits until it is told to go on."""

    def __init__(self) -> None:
        self.sent: list[int | dict[str, Any]] = []
        """Numbers of records, and control messages but `open`."""
        self.opens = 0
        self.has_sent = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self._closed = asyncio.Event()

    async def send(self, data: str | bytes) -> None:
        sent = json.loads(data) if isinstance(data, str) else frames.sequence_of(data)
        if isinstance(sent, dict) and sent["type"] == "open":
            self.opens += 1
        else:
            self.sent.append(sent)
        self.has_sent.set()
        await self.go_on.wait()

    async def close(self, code: int, reason: str) -> None:
        self._closed.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await self._closed.wait()
        if not self._closed.is_set():
            yield b""


class Intake:
    def hello(self) -> list[control.Control]:
        return []

    def open_requests(self, client: str) -> list[str]:
        return []

    def heard(self, client: str, seen: int) -> None:
        raise AssertionError

    def left(self) -> None:
        pass

    def from_client(self, client: str, seen: int, frame: bytes) -> str:
        return ""


def append(journal: Journal, kind: Kind = Kind.KERNEL, owner: str = "", size: int = 500) -> None:
    journal.append(Message("iopub", b"{}", content=b"x" * size), kind, owner)


def gap(first: int, last: int) -> dict[str, Any]:
    return {"type": "gap", "first": first, "last": last, "reason": "dropped from the journal"}


async def sent(journal: Journal, after: int = 0, client: str = "a") -> list[int | dict[str, Any]]:
    socket = Socket()
    channel = Channel(cast(Any, socket), journal, client, after)
    async with asyncio.TaskGroup() as group:
        group.create_task(channel.serve(Intake()))
        await channel.close(1000, "")
    return socket.sent


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Full: numbers 1 to 200; every fifth is a request, every fifth a reply to `a`."""
    monkeypatch.setattr(module, "RECENT_BYTES", 1000)
    journal = Journal(tmp_path, max_bytes=64 << 10, background=False)
    for _ in range(40):
        append(journal, Kind.REQUEST, "a", 5)
        for _ in range(3):
            append(journal)
        append(journal, Kind.KERNEL, "a", 5)
    journal.upkeep()
    return journal


async def test_a_client_gets_what_it_may_see_in_order(journal: Journal) -> None:
    numbers = await sent(journal, 150)
    assert numbers == [seq for seq in range(151, 201) if seq % 5 != 1]
    numbers = await sent(journal, 150, "b")
    assert numbers == [seq for seq in range(151, 201) if seq % 5 > 1]


async def test_what_was_dropped_is_announced_and_what_was_answered_is_not(
    journal: Journal,
) -> None:
    told = await sent(journal)
    assert told[:4] == [gap(2, 4), 5, gap(7, 9), 10]


async def test_dropped_numbers_that_follow_each_other_are_one_gap(journal: Journal) -> None:
    """For another client the requests and replies in between are nothing."""
    first, *others = await sent(journal, client="b")
    assert isinstance(first, dict)
    last = first["last"]
    assert first == gap(2, last)
    assert last > 10
    assert others == [seq for seq in range(last + 1, 201) if seq % 5 > 1]


async def test_missing_numbers_are_a_gap_also_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Journal(tmp_path, background=False)
    for _ in range(3):
        append(first)
    with monkeypatch.context() as patched:
        patched.setattr("os.pwritev", _full)
        for _ in range(4):
            append(first)
    with Journal(tmp_path, background=False) as journal:
        assert await sent(journal) == [1, 2, 3, gap(4, 7)]
        append(journal)
        assert await sent(journal) == [1, 2, 3, gap(4, 7), 8]
        assert await sent(journal, 5) == [gap(6, 7), 8]


async def test_what_comes_while_the_disk_is_read_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Journal(tmp_path, background=False)
    append(first)
    with monkeypatch.context() as patched:
        patched.setattr("os.pwritev", _full)
        append(first)
    with Journal(tmp_path, background=False) as journal:
        read = journal.read

        def slow(seq: int) -> object:
            found = read(seq)
            if seq == 2:
                append(journal)
            return found

        monkeypatch.setattr(journal, "read", slow)
        assert await sent(journal) == [1, gap(2, 2), 3]


def _full(*_: object) -> int:
    raise OSError(28, "No space left on device")


async def test_replay_goes_over_into_live_without_a_seam(journal: Journal) -> None:
    socket = Socket()
    channel = Channel(cast(Any, socket), journal, "b", 150)
    async with asyncio.TaskGroup() as group:
        group.create_task(channel.serve(Intake()))
        socket.go_on.clear()
        await socket.has_sent.wait()  # it is in the middle of the replay
        for _ in range(20):
            append(journal)
            channel.wake()
        socket.go_on.set()
        append(journal)
        channel.wake()
        await channel.close(1000, "")
    assert socket.sent == [seq for seq in range(151, 222) if seq > 200 or seq % 5 > 1]
