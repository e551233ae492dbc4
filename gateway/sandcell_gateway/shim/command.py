"""One command of a session: what was asked for, and how far it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from sandcell_gateway.engines.base import Exit

_SHELL = 'command -v bash >/dev/null && exec bash -c "$0"; exec sh -c "$0"'


class CommandStatus(StrEnum):
    """How far a command is, or how it ended."""

    QUEUED = "queued"
    """The sandbox is not there yet."""
    RUNNING = "running"
    EXITED = "exited"
    KILLED = "killed"
    """By a signal."""
    FAILED = "failed"
    """It could not be started."""
    UNKNOWN = "unknown"
    """Its end was lost with the sandbox."""


@dataclass(frozen=True)
class Order:
    """What is asked for. Its variables and its input are not kept with the command."""

    id: str
    command: str | tuple[str, ...]
    """A line for the shell, or a program and its arguments."""
    cwd: str | None = None
    """Relative to the workspace, or absolute inside the sandbox."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    stdin: bytes | None = None
    """Is given to it at once."""
    interactive: bool = False
    """Whether `stdin` stays open for more."""
    timeout: float | None = None
    """Seconds until it is ended."""
    background: bool = False
    """Whether nobody waits for it."""

    @property
    def argv(self) -> list[str]:
        """The program to start, and its arguments."""
        if isinstance(self.command, str):
            return ["/bin/sh", "-c", _SHELL, self.command]
        return list(self.command)

    @classmethod
    def from_json(cls, args: Mapping[str, Any]) -> Self:
        """From a request of the gateway's, which has checked it."""
        command, stdin = args["command"], args.get("stdin")
        return cls(
            id=str(args["id"]),
            command=command if isinstance(command, str) else tuple(command),
            cwd=args.get("cwd"),
            env=args.get("env") or {},
            stdin=None if stdin is None else str(stdin).encode(),
            interactive=bool(args.get("interactive")),
            timeout=args.get("timeout"),
            background=bool(args.get("background")),
        )


@dataclass
class Command:
    """What everybody may know of it. Times are Unix seconds."""

    id: str
    command: str | list[str]
    submitted: float
    background: bool = False
    interactive: bool = False
    timeout: float | None = None
    status: CommandStatus = CommandStatus.QUEUED
    pid: int | None = None
    """In the sandbox's own PID namespace."""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    reason: str | None = None
    """Why it could not be started, or how it was lost."""

    def as_json(self) -> dict[str, Any]:
        """For the wire, and for storing; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Raises `TypeError` or `ValueError` for what is no command."""
        fields: dict[str, Any] = dict(stored)
        fields["status"] = CommandStatus(fields["status"])
        return cls(**fields)

    @classmethod
    def of(cls, order: Order, now: float) -> Self:
        """One that was just asked for."""
        return cls(
            order.id,
            order.command if isinstance(order.command, str) else list(order.command),
            now,
            order.background,
            order.interactive,
            order.timeout,
        )

    def begin(self, pid: int, now: float) -> None:
        """Its process runs."""
        self.pid, self.started, self.status = pid, now, CommandStatus.RUNNING

    def end(self, how: Exit, now: float) -> None:
        """Its process has ended."""
        self.ended, self.exit_code, self.signal = now, how.code, how.signal
        if how.signal is not None:
            self.status = CommandStatus.KILLED
        elif how.code is not None:
            self.status = CommandStatus.EXITED
        else:
            self.status, self.reason = CommandStatus.UNKNOWN, how.describe()

    def fail(self, status: CommandStatus, reason: str, now: float) -> None:
        """It never ran, or nobody knows."""
        self.status, self.reason, self.ended = status, reason, now
