"""What sandboxes on this machine have in common: start, agent, sockets, end.

A sandbox is one first process, the agent, named by a `ProcessRef`. Everything here
goes through its pidfd, so that no other process is ever meant, and works whether we
started it or an earlier shim did.

How one is started without ever leaking (`launch`): maker and agent share a socket
pair. The agent says there that it listens; the maker reports the state for storing
and gives leave. If the maker dies at any time before, the agent reads the end of
the stream and ends the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import secrets
import signal
import socket
import stat
import struct
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sandcell_gateway.engines import cgroups, disk, tree
from sandcell_gateway.engines.base import (
    DiskUsage,
    EngineError,
    Exit,
    InsidePaths,
    Sandbox,
    SandboxGone,
    SandboxSpec,
    Usage,
)
from sandcell_gateway.engines.cgroups import ControlGroup
from sandcell_gateway.identity import ProcessRef, pidfd_ended, wait_pidfd, wait_readable

START_TIMEOUT = 60.0
"""Seconds for the agent to listen."""
CONNECT_TIMEOUT = 10.0
"""Seconds for a stream to the agent."""
END_TIMEOUT = 30.0
"""Seconds for a killed sandbox to be gone."""
LEAST_DATA = 2 << 30
"""Least RLIMIT_DATA in bytes: interpreters with compilers reserve more than they use."""
MAX_LINE = 1 << 20
"""Longest line from the agent; a longer one ends the stream."""
LOG_TAIL = 2000
"""Characters of the sandbox's log that go into an error."""

AGENT_SOCKET = "agent.sock"
LOG_FILE = "sandbox.log"
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_PEER = struct.Struct("3i")


@dataclass
class Launched:
    """A process that was just started and whose agent waits for leave."""

    pid: int
    pidfd: int
    start: socket.socket

    async def listening(self, spec: SandboxSpec) -> None:
        """Until the agent listens. Raises `EngineError` when it died first or is too slow."""
        try:
            await wait_readable(self.start.fileno(), START_TIMEOUT)
            if self.start.recv(1) == b"r":
                return
        except ConnectionError:
            pass  # as when it ends without a word
        except TimeoutError:
            raise failure(spec, f"did not answer within {START_TIMEOUT:g} s") from None
        raise failure(spec, "ended before its agent answered")

    def leave(self) -> None:
        """Let the agent go on."""
        self.start.sendall(b"g")

    def close(self) -> None:
        """Without leave given, the sandbox ends itself."""
        self.start.close()
        os.close(self.pidfd)


def launch(
    argv_for: Callable[[int], list[str]],
    *,
    env: Mapping[str, str],
    state: Path,
    keep: Iterable[int] = (),
) -> Launched:
    """Start a program detached from us: own session, default signals, output to a log
    in `state`.

    `argv_for` gets the number of the descriptor that the agent calls `start_fd`;
    `keep` are descriptors it inherits, too. Raises `OSError`.
    """
    ours, theirs = socket.socketpair()
    descriptor = os.open(state / LOG_FILE, _APPEND, 0o600)
    try:
        with theirs:
            argv = argv_for(theirs.fileno())
            pid = os.posix_spawn(
                argv[0],
                argv,
                env,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, descriptor, 1),
                    (os.POSIX_SPAWN_DUP2, descriptor, 2),
                    # Onto itself: stays open in the program (posix_spawn(3)).
                    *((os.POSIX_SPAWN_DUP2, n, n) for n in (theirs.fileno(), *keep)),
                ],
                setsid=True,
                setsigmask=[],
                # Ignored signals are inherited; an interpreter that ignores SIGINT
                # could not be interrupted.
                setsigdef=set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP},
            )
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(descriptor)
    return Launched(pid, os.pidfd_open(pid), ours)


def failure(spec: SandboxSpec, what: str) -> EngineError:
    """An error that says what the sandbox did, with the end of its log on one line."""
    text = ""
    with contextlib.suppress(OSError), (spec.state / LOG_FILE).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
        text = file.read().decode("utf-8", "replace")
    tail = " | ".join(line for line in text.splitlines() if line.strip())
    if "Permission denied" in tail:
        tail += f". Everybody must be able to read the Python environment ({spec.image.prefix})"
    return EngineError(f"the sandbox {what}: {tail or 'its log is empty'}")


def environ_of(
    spec: SandboxSpec, inside: InsidePaths, *, user: str, scratch: str
) -> dict[str, str]:
    """The environment of a sandbox's processes: an allow list, and the session's variables.

    `scratch` is a directory for what programs keep beside the work, so that the
    workspace holds the user's files only. Nothing is inherited but the time zone:
    a JPY_PARENT_PID, for one, would end ipykernel after 3 seconds.
    """
    path = (f"{inside.environment}/bin", f"{spec.image.prefix}/bin")
    zone = {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
    return {
        "HOME": inside.workspace,
        "USER": user,
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "TMPDIR": "/tmp",  # noqa: S108 (its own file system)
        "VIRTUAL_ENV": inside.environment,
        "PATH": ":".join((*path, "/usr/local/bin", "/usr/bin", "/bin")),
        "IPYTHONDIR": f"{scratch}/ipython",
        "JUPYTER_RUNTIME_DIR": f"{scratch}/jupyter",
        "MPLCONFIGDIR": f"{scratch}/matplotlib",
        **zone,
        **spec.env,
    }


def agent_config(spec: SandboxSpec, sockets: str, start_fd: int, **more: object) -> str:
    """The agent's only argument."""
    wanted = spec.limits
    limits: dict[str, object] = {
        "processes": wanted.processes,
        "open_files": wanted.open_files,
        "file_bytes": wanted.file_bytes,
    }
    # Where no control group counts, each process at least is bounded by itself.
    if wanted.memory_bytes and cgroups.MEMORY not in cgroups.homes():
        limits["data_bytes"] = max(wanted.memory_bytes, LEAST_DATA)
    if wanted.cpus and cgroups.CPU not in cgroups.homes():
        available = sorted(os.sched_getaffinity(0))
        count = min(len(available), math.ceil(wanted.cpus))
        limits["cpus"] = random.sample(available, count)
    config = {"socket": f"{sockets}/{AGENT_SOCKET}", "start_fd": start_fd, "limits": limits}
    return json.dumps({**config, **more})


def agent_program() -> Path:
    """The agent's file."""
    return programs_directory() / "agent.py"


def programs_directory() -> Path:
    """Our programs for the inside."""
    return Path(__file__).parent.parent / "inside"


def clean_sockets(spec: SandboxSpec) -> None:
    """Remove what an earlier sandbox left. It has ended, so nobody plants anew meanwhile."""
    for entry in os.scandir(spec.sockets):
        if not entry.is_dir(follow_symlinks=False):
            Path(entry.path).unlink()


def soft_limits(controls: Container[str]) -> frozenset[str]:
    """The limits that these controls of a control group leave to others."""
    hard = {"memory": cgroups.MEMORY, "cpus": cgroups.CPU}
    return frozenset({"disk", *(name for name in hard if hard[name] not in controls)})


def limit_facts() -> dict[str, str]:
    """For `Probe.facts`: how limits hold on this machine."""
    homes = cgroups.homes()
    versions = {control: f"control group v{home.version}" for control, home in homes.items()}
    memory = versions.get(cgroups.MEMORY, "watched, soft: a process at a time is ended")
    cpus = versions.get(cgroups.CPU, "processors assigned, soft: code can take more")
    return {
        "exhausts memory": memory,
        "exhausts CPU": cpus,
        "exhausts disk": "one file's size is limited; the sum is watched, soft",
        "is paused": versions.get(cgroups.FREEZER, "SIGSTOP to each process"),
    }


class LocalSandbox(Sandbox):
    """A sandbox whose first process is on this machine."""

    private: ClassVar[tuple[str, ...]] = ()
    """Its own file systems in memory, as seen from inside."""

    def __init__(
        self,
        spec: SandboxSpec,
        inside: InsidePaths,
        environ: Mapping[str, str],
        first: ProcessRef,
        uid: int,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        """`uid` owns its sockets; `stored` is the state of one that is adopted.

        Raises `ProcessLookupError` when the first process has ended.
        """
        self.inside = inside
        self.environ = environ
        self._spec = spec
        self._uid = uid
        self._first = first
        stored = stored or {}
        self._group = ControlGroup.from_json(stored.get("groups", {}))
        self._stopped = [ProcessRef.from_json(ref) for ref in stored.get("stopped", ())]
        self._usage = Usage(0, 0, 0, 0.0, 0)
        self._kills = 0
        self._pidfd = first.open()
        self._exit: Exit | None = None
        self._finishing: asyncio.Task[None] | None = None

    @property
    def state(self) -> dict[str, Any]:
        stopped = [ref.as_json() for ref in self._stopped]
        groups = self._group.as_json()
        return {"first": self._first.as_json(), "groups": groups, "stopped": stopped}

    def confine(self) -> None:
        """Put it into a control group of its own, before it starts any process."""
        name = f"sandcell-{self._spec.session_id}-{secrets.token_hex(4)}"
        self._group = ControlGroup.make(name, self._spec.limits)
        self._group.add(self._first.pid)

    # -- what it uses, and stopping it ---------------------------------------------------

    @property
    def soft(self) -> frozenset[str]:
        return soft_limits(self._group.controls)

    async def usage(self) -> Usage:
        if self._exit is None:
            self._usage = self._measure()
        return self._usage

    def _measure(self) -> Usage:
        pids = tree.members(self._first.pid)
        counted = self._group.memory()
        now, peak = counted if counted is not None else (self._memory(pids), 0)
        return Usage(
            memory_bytes=now,
            memory_peak=max(now, peak, self._usage.memory_peak),
            memory_kills=self._kills + self._group.memory_kills(),
            cpu_seconds=max(tree.cpu_seconds(pids), self._usage.cpu_seconds),
            processes=len(pids),
        )

    def _memory(self, pids: list[int]) -> int:
        """Bytes of processes and private file systems. Exact only near the limit: it costs."""
        private = sum(map(self._held, self.private))
        roughly = private + sum(map(tree.resident, pids))
        if roughly <= self._spec.limits.memory_bytes:
            return roughly
        return private + sum(map(tree.proportional, pids))

    def _held(self, place: str) -> int:
        try:
            found = os.statvfs(f"/proc/{self._first.pid}/root{place}")
        except OSError:
            return 0
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    async def disk_usage(self) -> DiskUsage:
        spec = self._spec
        return await asyncio.to_thread(disk.measure, spec.workspace, spec.environment)

    async def end_largest(self) -> None:
        pids = tree.members(self._first.pid)[1:]
        if pids:
            self._kills += 1
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                largest = ProcessRef.capture(max(pids, key=tree.proportional))
                largest.kill()
                # Until its memory is free, or the next look would end another one.
                await largest.wait(END_TIMEOUT)

    async def freeze(self) -> None:
        try:
            if cgroups.FREEZER in self._group.controls:
                await self._group.freeze()
            else:
                self._stopped = await asyncio.to_thread(tree.stop, self._first.pid)
        except BaseException:
            await self.thaw()
            raise

    async def thaw(self) -> None:
        self._group.thaw()
        if cgroups.FREEZER not in self._group.controls:
            stopped, self._stopped = self._stopped, []
            tree.go_on(self._first.pid, stopped)

    # -- reaching it ---------------------------------------------------------------------

    def _open_socket(self, name: str) -> int:
        """O_PATH descriptor of a socket of the sandbox. Raises `EngineError`.

        The directory is hostile: a link to another session's socket, or a socket that
        somebody else made, must not get our messages.
        """
        if not name or "/" in name or name in (".", ".."):
            raise EngineError(f"a socket's name was expected, got {name!r}")
        path = self._spec.sockets / name
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise EngineError(f"the sandbox has no socket {name}: {error.strerror}") from error
        found = os.fstat(descriptor)
        if stat.S_ISSOCK(found.st_mode) and found.st_uid == self._uid:
            return descriptor
        os.close(descriptor)
        kind = "a socket" if stat.S_ISSOCK(found.st_mode) else "no socket"
        raise EngineError(
            f"{name} in the sandbox is {kind} of uid {found.st_uid}; "
            f"expected a socket of uid {self._uid}. Code in the sandbox replaced it; restart it"
        )

    def connect_address(self, socket: str) -> tuple[str, Callable[[], None]]:
        left = [self._open_socket(socket)]

        def release() -> None:
            while left:
                os.close(left.pop())

        return f"ipc:///proc/self/fd/{left[0]}", release

    async def connect_agent(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            descriptor = self._open_socket(AGENT_SOCKET)
        except EngineError:
            self._raise_if_gone()
            raise
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(
                    f"/proc/self/fd/{descriptor}", limit=MAX_LINE
                )
        except (OSError, TimeoutError) as error:
            self._raise_if_gone()
            raise EngineError(f"the sandbox's agent does not answer: {error}") from error
        finally:
            os.close(descriptor)
        if self._is_agent(writer.get_extra_info("socket")):
            return reader, writer
        writer.close()
        self._raise_if_gone()
        raise EngineError("code in the sandbox took the place of its agent; restart it")

    def _is_agent(self, peer: socket.socket) -> bool:
        """Whether the first process itself listens there (SO_PEERCRED, unix(7))."""
        pid, _, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        return bool(pid == self._first.pid and self._first.alive())

    async def raise_if_ended(self) -> None:
        """For adoption: a zombie is no sandbox. Raises `SandboxGone`, with the handles released."""
        if pidfd_ended(self._pidfd):
            how = await self.wait()
            await self.aclose()
            raise SandboxGone(how)

    def _raise_if_gone(self) -> None:
        if not self._first.alive():
            raise SandboxGone(self._exit or Exit(None))

    # -- its end -------------------------------------------------------------------------

    async def wait(self) -> Exit:
        if self._exit is None:
            await wait_pidfd(self._pidfd)
            if self._finishing is None:
                self._finishing = asyncio.create_task(self._finish())
            # Others wait for it too: whoever is cancelled must not take it along.
            await asyncio.shield(self._finishing)
        assert self._exit is not None
        return self._exit

    async def _finish(self) -> None:
        self._usage = self._measure()
        how = await self._ended()
        await self._group.remove()
        self._exit = how

    @abstractmethod
    async def _ended(self) -> Exit:
        """The first process has ended: clean up and say how."""

    async def kill(self) -> Exit:
        if self._exit is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._group.thaw()
            async with asyncio.timeout(END_TIMEOUT):
                return await self.wait()
        return self._exit

    async def aclose(self) -> None:
        if self._finishing is not None:
            await self._finishing
        if self._pidfd >= 0:
            descriptor, self._pidfd = self._pidfd, -1
            os.close(descriptor)


async def forget_group(state: Mapping[str, Any]) -> None:
    """Remove the control group of a sandbox that has ended, from its stored state."""
    with contextlib.suppress(TypeError, ValueError):
        await ControlGroup.from_json(state.get("groups", {})).remove()


def reap(pidfd: int) -> Exit | None:
    """Collect an ended child of ours; None if it is not ours."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return Exit(result.si_status)
    return Exit(None, result.si_status)
