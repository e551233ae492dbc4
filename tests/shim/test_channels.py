"""A client learns which of its requests are open whenever it may have missed an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from websockets.asyncio.server import ServerConnection

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind
from sandcell_gateway.shim.channels import Channels
from sandcell_wire import control, frames
from sandcell_wire.messages import make


class Client:
    """The socket of a client that reads everything and sends nothing."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.changed = asyncio.Event()
        self._left = asyncio.Event()
        self.transport = self
        """Its own transport, too."""

    def abort(self) -> None:
        self._left.set()

    async def send(self, data: str | bytes) -> None:
        self.got.append(json.loads(data) if isinstance(data, str) else frames.sequence_of(data))
        self.changed.set()

    async def close(self, code: int, reason: str) -> None:
        self._left.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await self._left.wait()
        for nothing in list[bytes]():
            yield nothing

    async def until(self, *, count: int) -> list[Any]:
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.got


class Session:
    """Has one request open."""

    def __init__(self) -> None:
        self.departures = 0

    def hello(self) -> list[control.Control]:
        return []

    def open_requests(self, client: str) -> list[str]:
        return [f"of {client}"]

    def heard(self, client: str, seen: int) -> None:
        raise AssertionError

    def left(self) -> None:
        self.departures += 1

    def from_client(self, client: str, seen: int, frame: bytes) -> str:
        raise AssertionError


OPEN = {"type": "open", "msg_ids": ["of me"]}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def _append(journal: Journal) -> None:
    journal.append(make("iopub", "stream", {}, session="s"), Kind.KERNEL)


async def test_once_after_what_was_missed(journal: Journal) -> None:
    for _ in range(3):
        _append(journal)
    channels, client = Channels(journal), Client()
    serving = asyncio.create_task(
        channels.serve(cast("ServerConnection", client), "me", 1, Session())
    )
    assert await client.until(count=3) == [2, 3, OPEN]
    _append(journal)
    channels.wake()
    assert (await client.until(count=4))[3:] == [4]
    await client.close(1000, "")
    await serving


async def test_a_client_that_comes_again_ends_its_earlier_channel(journal: Journal) -> None:
    """Its line is dead, although nobody may have said so."""
    channels, old, other, new = Channels(journal), Client(), Client(), Client()

    def serve(client: Client, name: str) -> asyncio.Task[None]:
        socket = cast("ServerConnection", client)
        return asyncio.create_task(channels.serve(socket, name, 0, Session()))

    first, second = serve(old, "me"), serve(other, "another")
    await old.until(count=1)
    third = serve(new, "me")
    async with asyncio.timeout(10):
        await first
    _append(journal)
    channels.wake()
    assert (await new.until(count=2))[1] == 1
    assert (await other.until(count=2))[1] == 1
    assert len(old.got) == 1
    for client in (other, new):
        await client.close(1000, "")
    await asyncio.gather(second, third)


async def test_what_was_missed_is_told_and_leaving_is_noticed(journal: Journal) -> None:
    channels, client, session = Channels(journal), Client(), Session()
    missed = control.Missed(type="missed", after=0, msg_ids=["x"], ends=[], left_out=2)
    serving = asyncio.create_task(
        channels.serve(cast("ServerConnection", client), "me", 0, session, missed)
    )
    assert await client.until(count=2) == [missed, OPEN]
    await client.close(1000, "")
    await serving
    assert session.departures == 1
    assert channels.clients == frozenset()
