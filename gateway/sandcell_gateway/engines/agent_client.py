"""The shim's side of the agent: start, watch and signal processes in a sandbox.

What comes from the agent is hostile: lines are capped, every field is checked, an
unknown process is ignored. When the stream ends, all that wait get `SandboxGone`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, cast

from sandcell_gateway.engines.base import EngineError, Exit, SandboxGone
from sandcell_gateway.engines.local import MAX_LINE

ANSWER_TIMEOUT = 30.0
"""Seconds for one answer; a spawn waits for the disk at most."""
END_TIMEOUT = 5.0
"""Seconds in which a sandbox whose agent is gone must have ended."""
MAX_TEXT = 2000
"""Characters of an error's text that are kept."""
MAX_PROCESSES = 4096
"""Processes that a list may have."""


class ProcessExited(Exception):
    """A process ended before it was ready."""

    def __init__(self, pid: int, exit: Exit) -> None:
        self.pid = pid
        self.exit = exit
        super().__init__(f"process {pid} {exit.describe()} before it was ready")


@dataclass(frozen=True)
class ProcessState:
    """One process that the agent started."""

    pid: int
    """As the sandbox counts."""
    ready: bool
    exit: Exit | None
    """None while it runs."""
    name: str | None = None
    """As it was started under."""


@dataclass(frozen=True)
class Piece:
    """A part of a process's output."""

    at: int
    """The stream's number of its first byte."""
    data: bytes
    ended: bool
    """Whether nothing comes any more; then there is no data."""


@dataclass
class _Watched:
    ready: bool = False
    exit: Exit | None = None


class AgentHost(Protocol):
    """What is needed of a `Sandbox`."""

    async def connect_agent(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See `Sandbox`."""
        ...

    async def wait(self) -> Exit:
        """See `Sandbox`."""
        ...


class AgentClient:
    """One stream to a sandbox's agent; an async context manager.

    Every wait ends with `SandboxGone` when the agent is gone, and is cancelled
    without harm.
    """

    def __init__(
        self, sandbox: AgentHost, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.closed = asyncio.Event()
        """Set when the stream has ended."""
        self._sandbox = sandbox
        self._reader = reader
        self._writer = writer
        self._next = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._watched: dict[int, _Watched] = {}
        self._changed = asyncio.Event()
        self._gone: Exit | None = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, sandbox: AgentHost) -> Self:
        """Connect, and learn what runs already. Raises `EngineError` or `SandboxGone`."""
        reader, writer = await sandbox.connect_agent()
        self = cls(sandbox, reader, writer)
        try:
            await self.processes()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def aclose(self) -> None:
        """End the stream; the processes run on. Harmless when done before."""
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- requests ------------------------------------------------------------------------

    async def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        *,
        ready: bool = False,
        log: str | None = None,
        name: str | None = None,
        streams: bool = False,
        input: bool = False,
    ) -> int:
        """Start a program in a session of its own and return its pid.

        `env` is its complete environment. With `ready`, `wait_ready` waits for a byte
        on the descriptor that SANDCELL_READY_FD names. Its output goes to `log`, a
        path inside, else to the sandbox's log; with `streams`, `read` gets it, and with
        `input`, `write` feeds it. A `name` finds it again in `processes`. Raises
        `EngineError` or `SandboxGone`.
        """
        answer = await self._request(
            "spawn",
            argv=list(argv),
            env=dict(env),
            cwd=cwd,
            ready=ready,
            log=log,
            name=name,
            streams=streams,
            input=input,
        )
        pid = _pid(answer)
        if pid is None:
            raise EngineError("the sandbox's agent gave no pid")
        self._watched.setdefault(pid, _Watched())
        return pid

    async def signal(self, pid: int, signal: int, *, group: bool = True) -> None:
        """Signal a process, or what is left of its group; harmless when nothing is left.

        Raises `EngineError` for a process the agent does not know, or `SandboxGone`.
        """
        await self._request("signal", pid=pid, signal=int(signal), group=group)

    async def read(self, pid: int, stream: str, at: int, *, wait: bool) -> Piece:
        """What a process has written from byte `at` on: what came last again, or what is next.

        With `wait`, when there is something; until then it may write as much as a pipe
        holds. Only one read of a stream waits: an earlier one gets nothing.
        Raises `EngineError` or `SandboxGone`.
        """
        # Without a time limit: an agent that is frozen answers when it goes on.
        found = await self._request("read", None, pid=pid, stream=stream, at=at, wait=wait)
        try:
            data = base64.b64decode(str(found.get("data")), validate=True)
        except binascii.Error as error:
            raise EngineError("the sandbox's agent gave no base64") from error
        return Piece(at, data, ended=found.get("ended") is True and not data)

    async def write(
        self, pid: int, at: int | None, data: bytes, *, end: bool = False
    ) -> tuple[int, bool]:
        """Give a process input, whose first byte is the stream's number `at`; None is the next.

        Returns when the process has room for it: the number of what comes next, and whether
        it takes more. What it had before is not given twice. Raises `EngineError` or
        `SandboxGone`.
        """
        encoded = base64.b64encode(data).decode()
        answer = await self._request("write", None, pid=pid, at=at, data=encoded, end=end)
        next_at = answer.get("at")
        if not isinstance(next_at, int):
            raise EngineError("the sandbox's agent does not say how far the input is")
        return next_at, answer.get("closed") is not True

    async def processes(self) -> list[ProcessState]:
        """All that were started and not yet reaped. Raises `EngineError` or `SandboxGone`."""
        listed = (await self._request("list")).get("processes")
        if not isinstance(listed, list):
            raise EngineError("the sandbox's agent gave no list of processes")
        states: list[ProcessState] = []
        for entry in cast("list[object]", listed)[:MAX_PROCESSES]:
            state = _process_state(entry)
            if state is not None:
                states.append(state)
                self._note(state.pid, ready=state.ready, ended=state.exit)
        return states

    async def reap(self, pid: int) -> None:
        """Forget an ended process. Raises `EngineError` or `SandboxGone`."""
        await self._request("reap", pid=pid)
        self._watched.pop(pid, None)

    async def wait_ready(self, pid: int) -> None:
        """Until it has said that it is ready. Raises `ProcessExited` or `SandboxGone`."""
        while True:
            watched = self._known(pid)
            if watched.ready:
                return
            if watched.exit is not None:
                raise ProcessExited(pid, watched.exit)
            await self._change()

    async def wait_exit(self, pid: int) -> Exit:
        """Until it has ended. Raises `SandboxGone`."""
        while True:
            watched = self._known(pid)
            if watched.exit is not None:
                return watched.exit
            await self._change()

    # -- the stream ----------------------------------------------------------------------

    def _known(self, pid: int) -> _Watched:
        watched = self._watched.get(pid)
        if watched is None:
            raise EngineError(f"process {pid} was not started here, or was reaped")
        return watched

    async def _change(self) -> None:
        if self._gone is not None:
            raise SandboxGone(self._gone)
        await self._changed.wait()

    async def _request(
        self, op: str, timeout: float | None = ANSWER_TIMEOUT, **arguments: object
    ) -> dict[str, Any]:
        if self._gone is not None:
            raise SandboxGone(self._gone)
        self._next += 1
        number = self._next
        line = json.dumps({"id": number, "op": op, **arguments}).encode() + b"\n"
        if len(line) > MAX_LINE:
            raise EngineError(f"{op}: the request has {len(line)} bytes, at most {MAX_LINE} fit")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(line)
                with contextlib.suppress(ConnectionError):  # the reader finds out why
                    await self._writer.drain()
                return await answer
        except TimeoutError:
            raise EngineError(f"the sandbox's agent did not answer {op} in time") from None
        finally:
            del self._answers[number]

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(line)
        except (OSError, ValueError):  # ValueError: a line beyond the limit
            pass
        except asyncio.CancelledError:
            self._end(Exit(None, detail="is no longer watched"))
            raise
        finally:
            self._writer.close()
        self._end(await self._how_it_ended())

    async def _how_it_ended(self) -> Exit:
        """Without its agent a sandbox ends; if it does not, we cannot use it either."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                return await self._sandbox.wait()
        return Exit(None, detail="lost its agent")

    def _end(self, how: Exit) -> None:
        self._gone = how
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(SandboxGone(how))
        self._wake()
        self.closed.set()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _take(self, line: bytes) -> None:
        try:
            parsed: object = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(parsed, dict):
            return
        message = cast("dict[str, Any]", parsed)
        if "event" not in message:
            self._answer(message)
            return
        pid = _pid(message)
        if pid is not None and len(self._watched) < MAX_PROCESSES:
            ready = message["event"] == "ready"
            self._note(pid, ready=ready, ended=None if ready else _exit(message.get("exit")))

    def _answer(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        answer = self._answers.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():
            return
        if message.get("ok") is True:
            answer.set_result(message)
        else:
            answer.set_exception(EngineError(str(message.get("error"))[:MAX_TEXT]))

    def _note(self, pid: int, *, ready: bool, ended: Exit | None) -> None:
        # An event may come before the answer that names its process.
        watched = self._watched.setdefault(pid, _Watched())
        watched.ready |= ready
        watched.exit = watched.exit or ended
        self._wake()


def _pid(message: Mapping[str, object]) -> int | None:
    pid = message.get("pid")
    return pid if isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 else None


def _process_state(entry: object) -> ProcessState | None:
    if not isinstance(entry, dict):
        return None
    fields = cast("dict[str, object]", entry)
    pid = _pid(fields)
    if pid is None:
        return None
    running = fields.get("running") is not False
    ended = None if running else _exit(fields.get("exit"))
    name = fields.get("name")
    return ProcessState(
        pid, fields.get("ready") is True, ended, name if isinstance(name, str) else None
    )


def _exit(value: object) -> Exit:
    if not isinstance(value, dict):
        return Exit(None)
    fields = cast("dict[str, object]", value)
    code, number, peak = fields.get("code"), fields.get("signal"), fields.get("max_rss")
    return Exit(
        code=code if isinstance(code, int) else None,
        signal=number if isinstance(number, int) else None,
        max_rss=peak if isinstance(peak, int) and peak >= 0 else None,
    )
