"""The commands of one session: started, listed, found again by the next shim, forgotten.

Each has a directory with what is known of it (`command.json`) and its output (`spool`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from sandcell_gateway.engines.agent_client import AgentClient, ProcessState
from sandcell_gateway.engines.base import EngineError, Exit, Sandbox, SandboxGone
from sandcell_gateway.shim.active_time import ActiveTime
from sandcell_gateway.shim.command import Command, CommandStatus, Order
from sandcell_gateway.shim.running import COMMAND_FILE, RunningCommand
from sandcell_wire.codes import Code
from sandcell_wire.words import EXECUTION_ID

log = logging.getLogger(__name__)

DIRECTORY = "commands"
MAX_RUNNING = 64
"""Most commands that run at once."""
MAX_COMMANDS = 1000
"""Most commands that are remembered; the oldest ended ones go first."""
MAX_STORED = 256 << 20
"""Bytes of output above which the oldest ended commands are forgotten."""


class CommandRefused(Exception):
    """A command that cannot be run or found; code and text go to the gateway."""

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        super().__init__(text)


class Place(Protocol):
    """Where commands run."""

    @property
    def sandbox(self) -> Sandbox:
        """The running sandbox."""
        ...

    @property
    def agent(self) -> AgentClient:
        """The stream to its agent. Raises `SandboxGone` when there is none."""
        ...


class CommandHost(Protocol):
    """The session."""

    @property
    def time(self) -> ActiveTime:
        """In which it is not paused."""
        ...

    async def place(self) -> Place:
        """A running sandbox, started if need be. Raises `EngineError` or `SandboxGone`."""
        ...

    def busy_changed(self) -> None:
        """The first command was started, or the last one has ended."""
        ...


class Commands:
    """All that were started and are not forgotten, in the order in which they were asked for."""

    def __init__(self, host: CommandHost, state: Path) -> None:
        self._host = host
        self._directory = state / DIRECTORY
        self._all: dict[str, RunningCommand] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._known = asyncio.Event()
        """Set when it is known which commands of an earlier shim still run."""
        for command in sorted(self._stored(), key=lambda command: command.submitted):
            self._all[command.id] = RunningCommand(self._directory / command.id, command)

    def _stored(self) -> Iterator[Command]:
        for directory in self._directory.glob("*"):
            try:
                yield Command.from_json(json.loads((directory / COMMAND_FILE).read_text()))
            except (OSError, ValueError, TypeError, KeyError):
                shutil.rmtree(directory, ignore_errors=True)  # it was never started

    @property
    def are_running(self) -> bool:
        """Whether one has not ended."""
        return any(not running.has_ended for running in self._all.values())

    # -- what the gateway asks for -----------------------------------------------------------

    async def start(self, order: Order) -> Command:
        """Have it run. The same `id` again is the same command. Raises `CommandRefused`."""
        await self._known.wait()
        found = self._all.get(order.id)
        if found is not None:
            return found.command
        self._check(order)
        directory = self._directory / order.id
        directory.mkdir(mode=0o700, parents=True)
        running = RunningCommand(directory, Command.of(order, time.time()))
        try:
            if order.stdin is not None:
                running.keep_input(order.stdin)
            running.store()
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise CommandRefused(
                Code.QUOTA_EXCEEDED, f"the command cannot be kept: {error}"
            ) from error
        self._all[order.id] = running
        self._spawn(running, order)
        self._host.busy_changed()
        return running.command

    def _check(self, order: Order) -> None:
        if not re.fullmatch(EXECUTION_ID, order.id):
            raise CommandRefused(Code.VALIDATION_ERROR, f"id: {order.id[:64]!r} cannot be one")
        if sum(not running.has_ended for running in self._all.values()) >= MAX_RUNNING:
            raise CommandRefused(
                Code.QUOTA_EXCEEDED,
                f"{MAX_RUNNING} commands run already; wait for one, or kill it",
            )

    def get(self, id: str) -> RunningCommand:
        """One command. Raises `CommandRefused`."""
        found = self._all.get(id)
        if found is None:
            raise CommandRefused(Code.NOT_FOUND, f"there is no command {id[:64]}")
        return found

    def page(self, *, limit: int, offset: int) -> tuple[list[Command], int]:
        """A part of them, the newest first, and how many there are."""
        found = [running.command for running in reversed(self._all.values())]
        return found[offset : offset + limit], len(found)

    async def signal(self, id: str, number: int) -> Command:
        """Signal its process group. Raises `CommandRefused`."""
        running = self.get(id)
        await running.changed.until(lambda: running.command.pid is not None or running.has_ended)
        command = running.command
        if running.has_ended or command.pid is None:
            raise CommandRefused(Code.CONFLICT, f"command {id} has ended: {command.status}")
        await (await self._place()).agent.signal(command.pid, number)
        return command

    async def write(self, id: str, at: int | None, data: bytes, *, end: bool) -> dict[str, Any]:
        """Give it input. Raises `CommandRefused`."""
        running = self.get(id)
        if not running.command.interactive:
            raise CommandRefused(
                Code.CONFLICT, f"command {id} takes no input: start it with `interactive`"
            )
        await running.changed.until(lambda: running.command.pid is not None or running.has_ended)
        if running.has_ended or running.command.pid is None:
            raise CommandRefused(Code.CONFLICT, f"command {id} has ended")
        try:
            place = await self._place()
            next_at, is_open = await place.agent.write(running.command.pid, at, data, end=end)
        except EngineError as error:
            raise CommandRefused(Code.CONFLICT, str(error)) from error
        return {"at": next_at, "closed": not is_open}

    async def _place(self) -> Place:
        try:
            return await self._host.place()
        except (EngineError, SandboxGone) as error:
            raise CommandRefused(Code.OPERATION_FAILED, str(error)) from error

    # -- life --------------------------------------------------------------------------------

    def _spawn(self, running: RunningCommand, order: Order | None) -> None:
        task = asyncio.create_task(self._live(running, order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, running: RunningCommand, order: Order | None) -> None:
        """From its start, or from where the last shim left it, to its end."""
        command = running.command
        try:
            place = await self._host.place()
            if order is not None:
                await self._begin(running, place, order)
            await running.watch(place.agent, self._host.time)
        except EngineError as error:
            self._fail(running, CommandStatus.FAILED, str(error))
        except (SandboxGone, OSError) as error:
            self._fail(running, CommandStatus.UNKNOWN, str(error))
        finally:
            if command.ended is not None:
                self._forget_old()
                self._host.busy_changed()

    async def _begin(self, running: RunningCommand, place: Place, order: Order) -> None:
        inside = place.sandbox.inside
        cwd = str(PurePosixPath(inside.workspace) / (order.cwd or ""))
        pid = await place.agent.spawn(
            order.argv,
            {**place.sandbox.environ, **order.env},
            cwd,
            name=order.id,
            streams=True,
            input=order.interactive or order.stdin is not None,
        )
        running.command.begin(pid, time.time())
        running.note()
        running.changed.notify()

    def _fail(self, running: RunningCommand, status: CommandStatus, reason: str) -> None:
        running.command.fail(status, reason, time.time())
        running.close()

    def none_before(self) -> None:
        """There is no earlier sandbox: what an earlier shim had started, nobody knows."""
        for running in self._all.values():
            if not running.has_ended:
                self._fail(running, CommandStatus.UNKNOWN, "its sandbox has ended")
        self._known.set()

    async def resume(self, place: Place) -> None:
        """Go on with what an earlier shim had started in this sandbox."""
        processes = {process.name: process for process in await place.agent.processes()}
        for running in list(self._all.values()):
            process = processes.get(running.command.id)
            if running.has_ended:
                if process is not None and process.exit is not None:
                    await place.agent.reap(process.pid)
            elif process is not None:
                self._take(running, process)
            elif running.command.pid is None:
                self._remove(running.command.id)  # asked for again it is started
            else:
                self._fail(running, CommandStatus.UNKNOWN, "the session's supervisor lost it")
        self._known.set()

    def _take(self, running: RunningCommand, process: ProcessState) -> None:
        if running.command.pid is None:
            running.command.begin(process.pid, time.time())
        self._spawn(running, None)

    def _forget_old(self) -> None:
        ended = [running for running in self._all.values() if running.has_ended]
        stored = sum(running.spool.stored for running in self._all.values())
        while ended and (len(self._all) > MAX_COMMANDS or stored > MAX_STORED):
            oldest = ended.pop(0)
            stored -= oldest.spool.stored
            self._remove(oldest.command.id)

    def _remove(self, id: str) -> None:
        del self._all[id]
        shutil.rmtree(self._directory / id, ignore_errors=True)

    async def aclose(self) -> None:
        """The session ends, and its sandbox with all that runs there."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for running in self._all.values():
            if not running.has_ended:
                running.command.end(Exit(None, detail="was ended with its session"), time.time())
                running.close()
