"""Sandboxes that isolate nothing: the session runs as ordinary processes of the gateway's user.

For machines where nothing better works, and for trusted code. Code here can read,
change and end whatever the gateway's user can; DESIGN, "Isolation", holds in no row
but one: as root it makes nothing, because root of the host never runs a session's code.
It still has a life of its own: it outlives the shim, is adopted, and ends whole.

Its processes are known by descent from the agent, which adopts its orphans, and by
a mark in their environment, for the case that the agent was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from sandcell_gateway.engines import cgroups
from sandcell_gateway.engines.base import (
    Engine,
    EngineError,
    Exit,
    InsidePaths,
    Probe,
    Sandbox,
    SandboxGone,
    SandboxSpec,
)
from sandcell_gateway.engines.local import (
    END_TIMEOUT,
    Launched,
    LocalSandbox,
    agent_config,
    agent_program,
    clean_sockets,
    environ_of,
    forget_group,
    launch,
    limit_facts,
    programs_directory,
    reap,
    soft_limits,
)
from sandcell_gateway.identity import ProcessRef, process_stat

MARK = "SANDCELL_SANDBOX"
"""Variable that all processes of a sandbox inherit from each other."""
SCRATCH = "scratch"
ROOT_REFUSED = "it isolates nothing, so code of sessions would run as root of this machine"
ROOT_HINT = "run the gateway as an ordinary user, or use the engine bubblewrap"


class ProcessEngine(Engine):
    """See the module."""

    name: ClassVar[str] = "process"
    isolated: ClassVar[bool] = False
    strength: ClassVar[int] = 0

    def probe(self) -> Probe:
        if os.geteuid() == 0:
            return Probe(False, ROOT_REFUSED, ROOT_HINT)
        return Probe(
            True,
            f"works everywhere and isolates nothing: code runs as user {os.getuid()}, "
            "without any protection",
            hint="use an isolated engine unless you trust the code",
            facts=limit_facts(),
            soft=soft_limits(cgroups.homes()),
        )

    async def create(self, spec: SandboxSpec, report: Callable[[dict[str, Any]], None]) -> Sandbox:
        if os.geteuid() == 0:
            raise EngineError(f"engine process does not work here: {ROOT_REFUSED}. {ROOT_HINT}")
        mark = f"{spec.session_id}.{secrets.token_hex(8)}"
        try:
            (spec.state / SCRATCH).mkdir(mode=0o700, exist_ok=True)
            clean_sockets(spec)
            launched = _launch(spec, mark)
        except OSError as error:
            raise EngineError(f"cannot start {spec.image.python}: {error}") from error
        try:
            return await self._complete(spec, mark, launched, report)
        finally:
            launched.close()

    async def _complete(
        self,
        spec: SandboxSpec,
        mark: str,
        launched: Launched,
        report: Callable[[dict[str, Any]], None],
    ) -> Sandbox:
        sandbox = ProcessSandbox(spec, ProcessRef.capture(launched.pid), mark)
        try:
            sandbox.confine()
            report(sandbox.state)
            await launched.listening(spec)
            launched.leave()
        except BaseException:
            await sandbox.kill()
            await sandbox.aclose()
            raise
        return sandbox

    async def adopt(self, spec: SandboxSpec, state: Mapping[str, Any]) -> Sandbox:
        try:
            first, mark = ProcessRef.from_json(state["first"]), str(state["mark"])
        except (KeyError, TypeError, ValueError) as error:
            detail = f"left no usable record ({error!r})"
            raise SandboxGone(Exit(None, detail=detail)) from error
        try:
            sandbox = ProcessSandbox(spec, first, mark, state)
        except ProcessLookupError:
            # The agent may have been killed alone, and nobody was there to see.
            await _end_all(None, mark)
            await forget_group(state)
            raise SandboxGone(Exit(None)) from None
        await sandbox.raise_if_ended()
        return sandbox


class ProcessSandbox(LocalSandbox):
    """A tree of processes below an agent."""

    def __init__(
        self,
        spec: SandboxSpec,
        first: ProcessRef,
        mark: str,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        inside = InsidePaths(
            workspace=str(spec.workspace),
            environment=str(spec.environment),
            sockets=str(spec.sockets),
            programs=str(programs_directory()),
            python=str(spec.environment / "bin" / "python"),
        )
        environ = environ_of(spec, inside, user=_user(), scratch=str(spec.state / SCRATCH))
        # Whatever uid the spec has for isolated engines, this one cannot change it.
        super().__init__(spec, inside, {**environ, MARK: mark}, first, os.getuid(), stored)
        self._mark = mark

    @property
    def state(self) -> dict[str, Any]:
        return {**super().state, "mark": self._mark}

    async def kill(self) -> Exit:
        if self._exit is None:
            await self.thaw()
            await _end_all(self._first, self._mark)
        return await super().kill()

    async def _ended(self) -> Exit:
        how = reap(self._pidfd) or Exit(None)
        await _end_all(None, self._mark)
        return how


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _launch(spec: SandboxSpec, mark: str) -> Launched:
    def argv_for(start_fd: int) -> list[str]:
        # No limit on processes: here it would count all of the user's.
        spec_here = replace(spec, limits=replace(spec.limits, processes=0))
        config = agent_config(spec_here, str(spec.sockets), start_fd)
        return [str(spec.image.python), "-I", "-S", str(agent_program()), config]

    return launch(argv_for, env={MARK: mark}, state=spec.state)


# -- ending a tree -------------------------------------------------------------------------


async def _end_all(first: ProcessRef | None, mark: str) -> None:
    """Kill every process below `first` and every marked one, but not `first`, until none is left.

    Raises `TimeoutError`.
    """
    async with asyncio.timeout(END_TIMEOUT):
        while found := _members(first, mark):
            for member in found:
                with contextlib.suppress(PermissionError):
                    member.kill()
            for member in found:
                await member.wait()


def _members(first: ProcessRef | None, mark: str) -> list[ProcessRef]:
    """The running processes of the sandbox without its agent."""
    parents: dict[int, int] = {}
    running: dict[int, ProcessRef] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(ProcessLookupError):
                pid = int(entry.name)
                found = process_stat(pid)
                parents[pid] = found.parent
                if found.state not in "ZX":
                    running[pid] = ProcessRef.capture(pid)
    top = first.pid if first is not None and first.alive() else 0
    return [
        ref
        for pid, ref in running.items()
        if pid not in (top, os.getpid()) and (_descends(pid, top, parents) or _marked(pid, mark))
    ]


def _descends(pid: int, top: int, parents: Mapping[int, int]) -> bool:
    seen: set[int] = set()
    while top and pid in parents and pid not in seen:
        seen.add(pid)
        pid = parents[pid]
        if pid == top:
            return True
    return False


def _marked(pid: int, mark: str) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{MARK}={mark}".encode() in environ.split(b"\0")
