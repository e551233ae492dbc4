"""The contract between the shim and whatever makes its sandbox.

A sandbox is a place with files, an agent and the processes the agent starts.
The agent (`inside/agent.py`) is the sandbox's first process; all engines share
it, so an engine only says how the place is made, found again, reached and ended.
Nothing here assumes that the place is on this machine: the shim reaches it
through `connect_agent` and `connect_address` alone.

Found through the entry-point group `sandcell.engines` (`engines.registry`).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sandcell_gateway.images import Image


@dataclass(frozen=True)
class Probe:
    """Whether an engine works on this machine, and which protections hold."""

    works: bool
    reason: str
    """Why it works or not, one sentence."""
    hint: str = ""
    """What to do to make it work."""
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Threat (DESIGN, "Isolation") → how it is answered here."""
    soft: frozenset[str] = frozenset()
    """What `Sandbox.soft` will be."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one sandbox; 0 means none."""

    memory_bytes: int = 0
    """Of all its processes and its private file systems together."""
    cpus: float = 0
    """Processors' worth of time, e.g. 1.5."""
    disk_bytes: int = 0
    """Of workspace and environment together."""
    processes: int = 512
    open_files: int = 4096
    file_bytes: int = 0
    """Size of one file."""
    tmp_bytes: int = 1 << 30
    """Size of each private temporary file system."""


@dataclass(frozen=True)
class Usage:
    """What a sandbox uses."""

    memory_bytes: int
    memory_peak: int
    """The most it ever used; where nobody counts, the most that was seen."""
    memory_kills: int
    """How many of its processes were ended for want of memory."""
    cpu_seconds: float
    """Processor time of its life."""
    processes: int


@dataclass(frozen=True)
class DiskUsage:
    """What the files of a sandbox take."""

    bytes: int
    files: int
    complete: bool = True
    """False when there is more than was counted: too many files, or nested too deep."""


@dataclass(frozen=True)
class SandboxSpec:
    """What a sandbox is made of. Paths are on the shim's side."""

    session_id: str
    image: Image
    workspace: Path
    """Home and working directory of the session, owned by `uid`."""
    environment: Path
    """The session's own environment (a venv over the image)."""
    sockets: Path
    """0700 directory in which the sandbox makes its sockets; hostile once it runs."""
    state: Path
    """Engine's own files (status, logs); never visible inside."""
    env: Mapping[str, str]
    """The session's environment variables, on top of the engine's allow list."""
    uid: int | None
    """Unprivileged identity for a gateway that runs as root; None: the gateway's own user."""
    limits: Limits = Limits()


@dataclass(frozen=True)
class InsidePaths:
    """Where the spec's directories are, seen from inside."""

    workspace: str
    environment: str
    sockets: str
    programs: str
    """The directory of our own programs (`inside/`)."""
    python: str
    """The session environment's interpreter."""


@dataclass(frozen=True)
class Exit:
    """How a process or sandbox ended."""

    code: int | None
    """Exit code; None when a signal ended it or nothing is known."""
    signal: int | None = None
    detail: str = ""
    """What is known instead of code and signal."""
    max_rss: int | None = None
    """Peak of its resident memory in bytes."""

    def describe(self) -> str:
        """One phrase for people: 'exited with code 3', 'was killed by signal 9 (SIGKILL)'."""
        import signal as signals

        if self.signal is not None:
            try:
                name = f" ({signals.Signals(self.signal).name})"
            except ValueError:
                name = ""
            return f"was killed by signal {self.signal}{name}"
        if self.code is not None:
            return f"exited with code {self.code}"
        return self.detail or "ended, and how is not known"


class SandboxGone(Exception):
    """The sandbox no longer runs."""

    def __init__(self, exit: Exit) -> None:
        self.exit = exit
        super().__init__(f"the sandbox {exit.describe()}")


class EngineError(Exception):
    """A sandbox could not be made; the text is safe for the user and says what to do."""


class Sandbox(ABC):
    """One running sandbox, held by a shim."""

    inside: InsidePaths
    environ: Mapping[str, str]
    """What processes inside get: the allow list and the session's variables; nothing inherited."""

    @property
    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `Engine.adopt` needs to find it again, as JSON."""

    @abstractmethod
    async def connect_agent(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new stream to the agent. Raises `EngineError` or `SandboxGone`."""

    @abstractmethod
    def connect_address(self, socket: str) -> tuple[str, Callable[[], None]]:
        """A ZMQ address for the sandbox's socket file of this name, safe against a planted link.

        The second value releases what the address holds open; call it when the
        ZMQ socket is closed. Raises `EngineError` when it is not a socket of this sandbox.
        """

    @property
    @abstractmethod
    def soft(self) -> frozenset[str]:
        """Limits (`memory`, `cpus`, `disk`) that nothing enforces by itself.

        The shim looks after memory and disk, so they may be exceeded for a moment;
        code that wants to can evade `cpus`.
        """

    @abstractmethod
    async def usage(self) -> Usage:
        """What it uses now; after its end, what was last known."""

    @abstractmethod
    async def disk_usage(self) -> DiskUsage:
        """What workspace and environment hold. May take seconds."""

    @abstractmethod
    async def end_largest(self) -> None:
        """End the process that uses the most memory, as the kernel would; never the agent."""

    @abstractmethod
    async def freeze(self) -> None:
        """Stop every process, the agent too, until `thaw`. Store `state` afterwards.

        Raises `TimeoutError` when they do not stop, with all going on.
        """

    @abstractmethod
    async def thaw(self) -> None:
        """Let all go on that `freeze` stopped; harmless when nothing is frozen."""

    @abstractmethod
    async def wait(self) -> Exit:
        """Until the whole sandbox has ended. May be awaited several times."""

    @abstractmethod
    async def kill(self) -> Exit:
        """End every process of the sandbox and wait for it. Harmless when it has ended."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release local handles; the sandbox runs on."""


class Engine(ABC):
    """Makes sandboxes of one kind."""

    name: ClassVar[str]
    isolated: ClassVar[bool]
    strength: ClassVar[int]
    """`auto` takes the working engine with the greatest; below 0 is never automatic."""

    @abstractmethod
    def probe(self) -> Probe:
        """Try it: does a sandbox of this kind work here? Runs a real, tiny one; may take 100 ms."""

    @abstractmethod
    async def create(self, spec: SandboxSpec, report: Callable[[dict[str, Any]], None]) -> Sandbox:
        """Make a sandbox whose agent answers.

        `report` is called with the state as soon as there is something to clean
        up, before the next step, so that a crash never leaks a sandbox.
        Raises `EngineError`; nothing is left behind then.
        """

    @abstractmethod
    async def adopt(self, spec: SandboxSpec, state: Mapping[str, Any]) -> Sandbox:
        """Find a running sandbox again from its `state`. Raises `SandboxGone`."""
