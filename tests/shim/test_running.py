"""Who follows a command holds it back; who is dead does not."""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from sandcell_gateway.engines.agent_client import AgentClient, Piece
from sandcell_gateway.shim import running
from sandcell_gateway.shim.command import Command
from sandcell_gateway.shim.running import LEAD, RunningCommand
from sandcell_gateway.shim.spool import STDOUT, Chunk

PIECE = 256 << 10


class Endless:
    """An agent whose process prints for ever."""

    async def read(self, pid: int, stream: str, at: int, *, wait: bool) -> Piece:
        await asyncio.sleep(0)
        return Piece(at, b"x" * PIECE, ended=False)


async def settled(command: RunningCommand) -> int:
    """How much there is when no more comes."""
    for _ in itertools.count():
        before = command.spool.end
        for _ in range(100):
            await asyncio.sleep(0)
        if command.spool.end == before:
            return before
    raise AssertionError


async def test_a_follower_that_stands_still_holds_it_back_until_it_counts_as_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = RunningCommand(tmp_path, Command("c" * 8, "yes", 0.0, pid=1))
    agent = cast("AgentClient", Endless())
    async with aclosing(command.follow(0)) as output:
        first: Any = asyncio.ensure_future(anext(output))
        await asyncio.sleep(0)
        pump = asyncio.create_task(command._pump(agent, 1, STDOUT))
        chunk = await first
        assert isinstance(chunk, Chunk)
        held = await settled(command)
        assert LEAD <= held - chunk.end <= LEAD + PIECE
        await anext(output)
        assert await settled(command) > held
        monkeypatch.setattr(running, "HOLD", -1.0)
        before = command.spool.end
        command.changed.notify()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert command.spool.end > before + LEAD
        pump.cancel()
        await asyncio.wait([pump])
    command.spool.close()


async def test_a_full_disk_makes_it_wait_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "DISK_RETRY", 0.001)
    command = RunningCommand(tmp_path, Command("c" * 8, "yes", 0.0, pid=1))
    failures, write = iter(range(5)), os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if next(failures, None) is not None:
            raise OSError(28, "No space left on device")
        return write(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    await command._keep(STDOUT, b"all of it")
    assert next(failures, None) is None
    command.command.ended = 1.0
    async with aclosing(command.follow(0)) as output:
        assert [part async for part in output] == [Chunk(STDOUT, 9, b"all of it")]
    command.spool.close()
