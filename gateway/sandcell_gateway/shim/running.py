"""One command that runs: its output is fetched and kept, its time is limited.

A command waits in its `write` while nobody fetches what it gives: when the disk is full, and
when somebody follows it who does not keep up. Nothing is dropped under a follower; without
one, the spool's bound drops the oldest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path

from sandcell_gateway.engines.agent_client import AgentClient
from sandcell_gateway.engines.base import EngineError, Exit, SandboxGone
from sandcell_gateway.private_files import write_whole
from sandcell_gateway.shim.active_time import ActiveTime
from sandcell_gateway.shim.command import Command
from sandcell_gateway.shim.spool import STDERR, STDOUT, Chunk, Spool, SpoolReader
from sandcell_gateway.watched import Watched

log = logging.getLogger(__name__)

COMMAND_FILE, STDIN_FILE = "command.json", "stdin"
STREAMS = {STDOUT: "stdout", STDERR: "stderr"}
INPUT_PIECE = 256 << 10
"""Most bytes of input given at once."""
LEAD = 4 << 20
"""Bytes that a command may be ahead of who follows it."""
HOLD = 60.0
"""Seconds for which somebody who reads nothing holds a command back: then the line is dead."""
PIPE_BYTES = 2 << 20
"""More than a process can leave in a pipe; what comes after its end is its children's."""
KILL_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL when its time is over."""
DISK_RETRY = 1.0
"""Seconds until a full disk is tried again."""


class RunningCommand:
    """A command's files, process and followers; it may have ended."""

    def __init__(self, directory: Path, command: Command) -> None:
        self._directory = directory
        self.command = command
        self.spool = Spool(directory)
        self.changed = Watched()
        """Told of new output, of the end, and of followers that have come nearer."""
        self._readers: dict[SpoolReader, float] = {}
        """Who follows, and when they took something last."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.command.ended is not None

    # -- files -----------------------------------------------------------------------------

    def store(self) -> None:
        """Write down how far it is. Raises `OSError`."""
        write_whole(self._directory / COMMAND_FILE, json.dumps(self.command.as_json()))

    def note(self) -> None:
        """The same as far as the disk allows: the next shim finds the process by its name."""
        try:
            self.store()
        except OSError as error:
            log.warning("command %s: %s", self.command.id, error)

    def keep_input(self, data: bytes) -> None:
        """What it is to be given, so that another shim can go on with it. Raises `OSError`."""
        write_whole(self._directory / STDIN_FILE, data)

    # -- life ------------------------------------------------------------------------------

    async def watch(self, agent: AgentClient, clock: ActiveTime) -> None:
        """Until its process has ended and all it gave is kept. Raises `SandboxGone`.

        `clock` measures the time that it may take.
        """
        pid = self.command.pid
        assert pid is not None
        helpers = [asyncio.ensure_future(self._pump(agent, pid, stream)) for stream in STREAMS]
        helpers += [asyncio.ensure_future(self._limit(agent, pid, clock))]
        helpers += [asyncio.ensure_future(self._feed(agent, pid))]
        try:
            how = await agent.wait_exit(pid)
        finally:
            for helper in helpers:
                helper.cancel()
            for failed in await asyncio.gather(*helpers, return_exceptions=True):
                if isinstance(failed, Exception) and not isinstance(failed, SandboxGone):
                    log.error("command %s: %r", self.command.id, failed)
        for stream in STREAMS:
            with contextlib.suppress(EngineError):
                await self._drain(agent, pid, stream)
        self.end(how)
        with contextlib.suppress(EngineError):
            await agent.reap(pid)

    def end(self, how: Exit) -> None:
        """Its process has ended so."""
        self.command.end(how, time.time())
        self.close()

    def close(self) -> None:
        """It has ended: write that down, and tell."""
        (self._directory / STDIN_FILE).unlink(missing_ok=True)
        self.note()
        self.spool.close()
        self.changed.notify()

    async def _pump(self, agent: AgentClient, pid: int, stream: int) -> None:
        while True:
            while not await self.changed.until(self._has_room, HOLD):
                pass  # they may be dead by now
            at = self.spool.counts[stream]
            piece = await agent.read(pid, STREAMS[stream], at, wait=True)
            if piece.ended:
                return
            await self._keep(stream, piece.data)

    async def _drain(self, agent: AgentClient, pid: int, stream: int) -> None:
        """What the process has left in its pipe."""
        end = self.spool.counts[stream] + PIPE_BYTES
        while (at := self.spool.counts[stream]) < end:
            piece = await agent.read(pid, STREAMS[stream], at, wait=False)
            if not piece.data:
                return
            await self._keep(stream, piece.data)

    async def _keep(self, stream: int, data: bytes) -> None:
        while data:
            try:
                self.spool.append(stream, data)
                break
            except OSError as error:
                log.warning("command %s waits for the disk: %s", self.command.id, error)
                await asyncio.sleep(DISK_RETRY)
        self.changed.notify()

    def _has_room(self) -> bool:
        dead = time.monotonic() - HOLD
        return all(
            self.spool.end - reader.at < LEAD or moved < dead
            for reader, moved in self._readers.items()
        )

    async def _limit(self, agent: AgentClient, pid: int, clock: ActiveTime) -> None:
        command = self.command
        if command.timeout is None or command.started is None:
            return
        await clock.sleep(command.started + command.timeout - time.time())
        command.timed_out = True
        self.note()
        await agent.signal(pid, signal.SIGTERM)
        await clock.sleep(KILL_GRACE)
        await agent.signal(pid, signal.SIGKILL)

    async def _feed(self, agent: AgentClient, pid: int) -> None:
        path = self._directory / STDIN_FILE
        if not path.exists():
            return
        data = path.read_bytes()
        for at in range(0, max(len(data), 1), INPUT_PIECE):
            is_last = at + INPUT_PIECE >= len(data)
            end = is_last and not self.command.interactive
            await agent.write(pid, at, data[at : at + INPUT_PIECE], end=end)
        path.unlink()

    # -- following -------------------------------------------------------------------------

    @contextmanager
    def _reading(self, after: int) -> Generator[SpoolReader]:
        with SpoolReader(self.spool, after) as reader:
            self._readers[reader] = time.monotonic()
            try:
                yield reader
            finally:
                del self._readers[reader]
                self.changed.notify()

    async def follow(self, after: int, *, live: bool = True) -> AsyncGenerator[Chunk | int]:
        """Its output from a position on; a number says how many bytes are lost.

        To its end, or, if not `live`, as far as it is there.
        """
        with self._reading(after) as reader:
            while True:
                has_ended = self.has_ended
                chunks = reader.read()
                if reader.lost:
                    yield reader.lost
                    reader.lost = 0
                for chunk in chunks:
                    yield chunk
                if chunks:
                    self._readers[reader] = time.monotonic()
                    self.changed.notify()
                elif has_ended or not live:
                    return
                else:
                    await self.changed.until(lambda: reader.at < self.spool.end or self.has_ended)
