"""The session's sandbox in the shim: made, watched, found again, ended.

What is needed to find it again lies in one file (`spec.SANDBOX_FILE`), written before
each step that it describes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandcell_gateway.engines import registry
from sandcell_gateway.engines.agent_client import AgentClient
from sandcell_gateway.engines.base import (
    EngineError,
    Exit,
    Sandbox,
    SandboxGone,
    SandboxSpec,
)
from sandcell_gateway.environment import make_environment
from sandcell_gateway.images import Image, ImageError
from sandcell_gateway.private_files import write_whole
from sandcell_gateway.shim.interpreter import InterpreterState
from sandcell_gateway.shim.spec import SANDBOX_FILE, ShimSpec
from sandcell_gateway.shim.watchdog import Watchdog

KILL_TIMEOUT = 10.0
"""Seconds for a killed interpreter to be gone, before the whole sandbox is ended."""


class Supervisor:
    """Holds the sandbox while there is one."""

    def __init__(
        self, spec: ShimSpec, *, tell: Callable[[str], None], interrupt: Callable[[], None]
    ) -> None:
        """`tell` shows a line under the cells that run; `interrupt` interrupts them."""
        self._spec = spec
        self.engine = registry.load(spec.engine)
        self._file = Path(spec.state_dir) / SANDBOX_FILE
        self._tell = tell
        self._interrupt = interrupt
        self._sandbox: Sandbox | None = None
        self._agent: AgentClient | None = None
        self._watchdog: Watchdog | None = None
        self._watching: asyncio.Task[None] | None = None
        self._interpreter = 0
        self._condemned = ""
        """Why we ended the interpreter ourselves."""

    @property
    def recorded(self) -> bool:
        """Whether an earlier shim left a sandbox to adopt."""
        return self._file.exists()

    @property
    def is_there(self) -> bool:
        """Whether there is a sandbox with an agent."""
        return self._sandbox is not None and self._agent is not None

    @property
    def sandbox(self) -> Sandbox:
        """The running sandbox."""
        assert self._sandbox is not None
        return self._sandbox

    @property
    def agent(self) -> AgentClient:
        """The stream to its agent. Raises `SandboxGone` when there is none."""
        if self._agent is None:
            raise SandboxGone(Exit(None, detail="has been ended"))
        return self._agent

    # -- making and finding ----------------------------------------------------------------

    async def start(self) -> None:
        """Make a sandbox if there is none. Raises `EngineError`, `SandboxGone` or `OSError`."""
        if self._sandbox is not None:
            return
        spec = self._sandbox_spec()
        await asyncio.to_thread(make_environment, spec.image, spec.environment, uid=spec.uid)
        sandbox = await self.engine.create(spec, lambda state: self._store(sandbox=state))
        self._store(sandbox=sandbox.state)
        await self._take(sandbox)

    async def adopt(self) -> InterpreterState:
        """Find the recorded sandbox; its interpreter, which runs.

        Raises `SandboxGone` when either has ended, `EngineError`, `OSError`,
        `ValueError`, `KeyError` or `TypeError` when they cannot be reached.
        """
        stored = self._stored()
        sandbox = await self.engine.adopt(self._sandbox_spec(), stored["sandbox"])
        # The agent must answer; a session that was paused is paused again once it is found.
        await sandbox.thaw()
        await self._take(sandbox)
        state = InterpreterState(**stored["interpreter"])
        for process in await self.agent.processes():
            if process.pid == state.pid and process.exit is not None:
                raise SandboxGone(process.exit)
            if process.pid == state.pid:
                self._interpreter = state.pid
                return state
        raise SandboxGone(Exit(None))

    def _sandbox_spec(self) -> SandboxSpec:
        try:
            image = Image.of_prefix(Path(self._spec.image))
        except ImageError as error:
            raise EngineError(str(error)) from error
        return self._spec.sandbox(image)

    async def _take(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._watchdog = Watchdog(
            sandbox,
            self._spec.limits,
            tell=self._tell,
            interrupt=self._interrupt,
            end=self._condemn,
        )
        self._watching = asyncio.create_task(self._watchdog.run())
        self._agent = await AgentClient.open(sandbox)

    def _stored(self) -> dict[str, Any]:
        stored: dict[str, Any] = json.loads(self._file.read_text()) if self.recorded else {}
        return stored

    def _store(self, **parts: dict[str, Any]) -> None:
        write_whole(self._file, json.dumps({**self._stored(), **parts}))

    async def freeze(self) -> None:
        """Stop every process of the sandbox. Raises `TimeoutError`, with all going on."""
        await self.sandbox.freeze()
        self._store(sandbox=self.sandbox.state, frozen={"is": True})

    async def thaw(self) -> None:
        """Let them go on."""
        await self.sandbox.thaw()
        self._store(sandbox=self.sandbox.state, frozen={"is": False})

    @property
    def was_frozen(self) -> bool:
        """Whether an earlier shim left it frozen."""
        return bool(self._stored().get("frozen", {}).get("is"))

    # -- the interpreter's process ---------------------------------------------------------

    def started(self, state: InterpreterState) -> None:
        """Remember the interpreter for adoption."""
        self._interpreter = state.pid
        self._store(interpreter=state.as_json())

    async def signal(self, number: signal.Signals) -> None:
        """Signal the interpreter's process group; harmless when it has ended meanwhile."""
        with contextlib.suppress(EngineError, SandboxGone):
            await self.agent.signal(self._interpreter, number, group=True)

    async def wait_interpreter(self) -> Exit:
        """Until the interpreter has ended, with the sandbox or alone."""
        try:
            return await self.agent.wait_exit(self._interpreter)
        except SandboxGone as gone:
            return gone.exit

    async def _condemn(self, why: str) -> None:
        self._condemned = why
        await self.signal(signal.SIGKILL)

    async def explain(self, how: Exit) -> tuple[str, str]:
        """Code and words for the interpreter's end."""
        condemned, self._condemned = self._condemned, ""
        if condemned:
            return "disk_full", f"the interpreter was ended: {condemned}"
        if how.signal == signal.SIGKILL and self._watchdog is not None:
            memory = await self._watchdog.memory_reason()
            if memory:
                return "out_of_memory", f"the interpreter was ended: {memory}"
        return _code(how), f"the interpreter {how.describe()}"

    async def kill_interpreter(self) -> None:
        """End its process, and the whole sandbox when the agent does not answer."""
        pid = self._interpreter
        try:
            async with asyncio.timeout(KILL_TIMEOUT):
                for process in await self.agent.processes():
                    if process.pid == pid and process.exit is None:
                        await self.agent.signal(pid, signal.SIGKILL, group=True)
                        await self.agent.wait_exit(pid)
                await self.agent.reap(pid)
        except (EngineError, SandboxGone, OSError, TimeoutError):
            await self.end()

    # -- the end ---------------------------------------------------------------------------

    async def end(self) -> None:
        """End the sandbox, if there is one."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = self._watchdog = None
        if self._agent is not None:
            await self._agent.aclose()
            self._agent = None
        sandbox, self._sandbox = self._sandbox or await self._half_made(), None
        if sandbox is not None:
            await sandbox.kill()
            await sandbox.aclose()
        self._file.unlink(missing_ok=True)

    async def _half_made(self) -> Sandbox | None:
        """A sandbox whose making was cancelled after it had been reported."""
        if not self.recorded:
            return None
        with contextlib.suppress(SandboxGone, EngineError, OSError, KeyError):
            return await self.engine.adopt(self._sandbox_spec(), self._stored()["sandbox"])
        return None


def _code(how: Exit) -> str:
    if how.signal is not None:
        return "signal"
    return "exit" if how.code is not None else "host_lost"
