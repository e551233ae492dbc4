"""The shim's answer to `head`: what a gateway signs, now or when there is more to sign."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, unix_connect

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind
from sandcell_gateway.shim.executions import Executions
from sandcell_gateway.shim.growth import Growth
from sandcell_gateway.shim.life import Life
from sandcell_gateway.shim.server import ShimServer
from sandcell_gateway.shim.session import ShimSession
from sandcell_gateway.shim.spec import ShimSpec
from tests.journal.samples import message

PATIENCE = 20.0
"""Seconds for what must happen; only a failing test waits so long."""


@dataclass
class Session:
    """What of a session `head` looks at."""

    journal: Journal
    growth: Growth
    spec: ShimSpec
    life: Life = field(default_factory=lambda: Life(lambda: "i", lambda event: None))

    def record(self, count: int) -> None:
        for _ in range(count):
            self.journal.append(message(b"x" * 1000), Kind.KERNEL)
            self.growth.recorded()


@asynccontextmanager
async def serving(directory: Path) -> AsyncGenerator[tuple[Session, ClientConnection]]:
    """A session and the gateway's line to it; at the end the server's handlers have ended."""
    path = directory / "s"
    with Journal(directory / "journal") as journal, socket.socket(socket.AF_UNIX) as sock:
        spec = ShimSpec("s", "process", "i", str(directory), str(directory), "")
        session = Session(journal, Growth(journal, Executions), spec)
        sock.bind(str(path))
        sock.listen()
        server = await ShimServer(cast("ShimSession", session)).listen(sock)
        async with unix_connect(str(path), "ws://shim/control") as line:
            await line.recv()  # the status
            yield session, line
        server.close()
        async with asyncio.timeout(PATIENCE):
            await server.wait_closed()


async def ask(line: ClientConnection, **args: float) -> None:
    await line.send(json.dumps({"id": 1, "op": "head", "args": args}))


async def answer(line: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        return cast("dict[str, Any]", json.loads(await line.recv())["result"])


async def test_it_says_where_the_journal_ends(tmp_path: Path) -> None:
    async with serving(tmp_path) as (session, line):
        session.record(3)
        await ask(line)
        seq, chain = session.journal.head()
        assert await answer(line) == {"seq": 3, "chain": chain.hex(), "holes": [], "due": False}
        assert seq == 3


async def test_what_it_says_is_on_the_disk(tmp_path: Path) -> None:
    """Or a loss of power would look as if somebody had cut the journal."""
    async with serving(tmp_path) as (session, line):
        session.record(3)
        await ask(line)
        await answer(line)
        (segment,) = session.journal.view()
        assert segment.synced == segment.size > 0


async def test_it_waits_until_there_is_more(tmp_path: Path) -> None:
    async with serving(tmp_path) as (session, line):
        await ask(line, seconds=300, bytes=5000, executions=0, after=0)
        await ask(line)
        assert (await answer(line))["seq"] == 0, "the one that waits holds up no other"
        session.record(6)
        found = await answer(line)
        assert (found["seq"], found["due"]) == (6, True)


async def test_it_says_when_the_time_is_over(tmp_path: Path) -> None:
    async with serving(tmp_path) as (session, line):
        session.record(1)
        await ask(line, seconds=0.05, bytes=5000, executions=1, after=0)
        found = await answer(line)
        assert (found["seq"], found["due"]) == (1, False)


async def test_nobody_is_waited_for_when_the_line_has_ended(tmp_path: Path) -> None:
    """A session would close only when the shim had lost patience."""
    async with serving(tmp_path) as (_, line):
        await ask(line, seconds=300, bytes=5000, executions=0, after=0)
        await ask(line)
        await answer(line)
