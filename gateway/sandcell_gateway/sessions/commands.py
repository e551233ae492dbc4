"""Commands in sessions: started, followed, given input, signalled."""

from __future__ import annotations

import codecs
import json
import signal
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import from_unix
from sandcell_gateway.errors import ShimLost
from sandcell_gateway.sessions.code import LOOK
from sandcell_gateway.sessions.control import read_command
from sandcell_gateway.sessions.history import TIMEOUT
from sandcell_gateway.sessions.patience import Patience
from sandcell_gateway.sessions.service import Page, SessionService
from sandcell_gateway.shim.spool import OUTPUT, STDERR, STDOUT
from sandcell_wire.commands import (
    CommandEnded,
    CommandInput,
    CommandInputTaken,
    CommandList,
    CommandLost,
    CommandModel,
    CommandOutput,
    CommandRun,
    CommandStarted,
    Stream,
)

MAX_ANSWER = 4 << 20
"""Characters of each stream that an answer holds; a stream of events has all."""

_STREAMS: dict[int, Stream] = {STDOUT: "stdout", STDERR: "stderr"}
Event = CommandStarted | CommandOutput | CommandLost | CommandEnded


@dataclass(frozen=True)
class Running:
    """One command of one owner's session."""

    principal: Principal
    session_id: str
    model: CommandModel


class CommandService:
    """Runs commands in the sessions that a `SessionService` keeps.

    All raise `SessionNotFound`, `SessionEnded`, `ShimUnreachable` or `ShimRefused`.
    """

    def __init__(self, sessions: SessionService) -> None:
        self._sessions = sessions

    async def start(self, principal: Principal, session_id: str, wanted: CommandRun) -> Running:
        """Have it run. With the same id it is the same command."""
        args = wanted.model_dump(exclude={"id"}) | {"id": wanted.id or uuid.uuid4().hex}
        entry = await self._ask(principal, session_id, "start_command", args)
        return Running(principal, session_id, _model(entry))

    async def find(self, principal: Principal, session_id: str, id: str) -> Running:
        """One that was started."""
        entry = await self._ask(principal, session_id, "wait_command", {"id": id})
        return Running(principal, session_id, _model(entry))

    async def list(self, principal: Principal, session_id: str, page: Page) -> CommandList:
        """Those that are remembered, the newest first."""
        args = {"limit": page.limit, "offset": page.offset}
        found = await self._ask(principal, session_id, "commands", args)
        commands = [_model(entry) for entry in found["commands"]]
        return CommandList(
            commands=commands, total=found["total"], limit=page.limit, offset=page.offset
        )

    async def wait(self, running: Running, seconds: float | None = None) -> CommandModel:
        """How it is when it has ended, or after so many seconds; with the output until then."""
        await self._wait(running, seconds)
        collected = _Collected()
        async with aclosing(self._output(running, 0, live=False)) as events:
            async for event in events:
                collected.add(event)
        return collected.model(running)

    async def _wait(self, running: Running, seconds: float | None) -> dict[str, Any]:
        left = seconds
        while True:
            look = LOOK if left is None else min(left, LOOK)
            args = {"id": running.model.id, "seconds": look}
            entry = await self._ask(
                running.principal, running.session_id, "wait_command", args, TIMEOUT + look
            )
            left = None if left is None else left - look
            if entry["ended"] is not None or (left is not None and left <= 0):
                return entry

    async def signal(
        self, principal: Principal, session_id: str, id: str, wanted: int | str
    ) -> CommandModel:
        """Signal its process group."""
        number = wanted if isinstance(wanted, int) else signal.Signals[wanted]
        args = {"id": id, "signal": int(number)}
        return _model(await self._ask(principal, session_id, "signal_command", args))

    async def kill(self, principal: Principal, session_id: str, id: str) -> CommandModel:
        """End it, if it runs; how it ended."""
        running = await self.find(principal, session_id, id)
        if running.model.ended_at is None:
            args = {"id": id, "signal": int(signal.SIGKILL)}
            await self._ask(principal, session_id, "signal_command", args)
        return _model(await self._wait(running, None))

    async def write(
        self, principal: Principal, session_id: str, id: str, wanted: CommandInput
    ) -> CommandInputTaken:
        """Give it input. Repeated when its answer is lost only if it says where it belongs."""
        args = {"id": id, **wanted.model_dump()}
        if wanted.at is not None:
            taken = await self._ask(principal, session_id, "write_command", args)
        else:
            keeper = await self._sessions.keeper(principal, session_id)
            taken = await keeper.request("write_command", args, TIMEOUT)
        return CommandInputTaken.model_validate(taken)

    async def _ask(
        self,
        principal: Principal,
        session_id: str,
        op: str,
        args: dict[str, Any],
        timeout: float = TIMEOUT,
    ) -> dict[str, Any]:
        return await self._sessions.ask(principal, session_id, op, args, timeout)

    async def follow(self, running: Running, after: int = 0) -> AsyncGenerator[Event]:
        """What it writes, from behind a position to its end."""
        yield CommandStarted(command=running.model)
        async with aclosing(self._output(running, after, live=True)) as events:
            async for event in events:
                yield event

    async def _output(self, running: Running, after: int, *, live: bool) -> AsyncGenerator[Event]:
        progress, patience = Progress(after), Patience()
        while not progress.has_ended():
            try:
                line = self._line(running, progress.position, live=live)
                async with aclosing(line):
                    async for data in line:
                        patience.back()
                        for event in progress.take(data):
                            yield event
                        if progress.has_ended():
                            break
            except ShimLost as error:
                await patience.away(error)

    async def _line(
        self, running: Running, after: int, *, live: bool
    ) -> AsyncGenerator[bytes | str]:
        keeper = await self._sessions.keeper(running.principal, running.session_id)
        line = read_command(keeper.socket, running.model.id, after, live=live)
        async with aclosing(line):
            async for data in line:
                yield data


class Progress:
    """How far a line has told of one command. Pure."""

    def __init__(self, after: int) -> None:
        self.position = after
        """Behind what came last."""
        self._ended = False
        self._decoders = {
            stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in _STREAMS
        }

    def has_ended(self) -> bool:
        """Whether the line has said how the command is."""
        return self._ended

    def take(self, data: bytes | str) -> Iterator[Event]:
        """One message of the line: what it tells."""
        if isinstance(data, bytes):
            stream, self.position = OUTPUT.unpack_from(data)
            yield from self._text(stream, data[OUTPUT.size :])
            return
        message = json.loads(data)
        if "lost" in message:
            self.position += message["lost"]
            yield CommandLost(bytes=message["lost"])
            return
        for stream in _STREAMS:
            yield from self._text(stream, b"", final=True)
        self._ended = True
        yield CommandEnded(command=_model(message["command"]))

    def _text(self, stream: int, data: bytes, *, final: bool = False) -> Iterator[Event]:
        text = self._decoders[stream].decode(data, final)
        if text:
            yield CommandOutput(stream=_STREAMS[stream], text=text, position=self.position)


class _Collected:
    """The newest of both streams."""

    def __init__(self) -> None:
        self._texts: dict[str, deque[str]] = {name: deque() for name in _STREAMS.values()}
        self._sizes = dict.fromkeys(self._texts, 0)
        self._lost = 0
        self._command: CommandModel | None = None

    def add(self, event: Event) -> None:
        match event:
            case CommandOutput(stream=stream, text=text):
                self._texts[stream].append(text)
                self._sizes[stream] += len(text)
                while self._sizes[stream] > MAX_ANSWER:
                    dropped = self._texts[stream].popleft()
                    self._sizes[stream] -= len(dropped)
                    self._lost += len(dropped.encode())
            case CommandLost(bytes=count):
                self._lost += count
            case CommandEnded(command=command):
                self._command = command
            case _:
                pass

    def model(self, running: Running) -> CommandModel:
        """The command with its output."""
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        command = self._command or running.model
        return command.model_copy(update={**texts, "lost_bytes": self._lost})


def _model(entry: dict[str, Any]) -> CommandModel:
    times = {
        f"{name}_at": None if entry[name] is None else from_unix(entry[name])
        for name in ("submitted", "started", "ended")
    }
    return CommandModel.model_validate({**entry, **times})
