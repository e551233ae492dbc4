"""The bodies of `/v1/sessions/{id}/commands`, shared by server and client."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, StringConstraints

from sandcell_wire.models import Answer, EnvName, ExecutionId, Model, NoNul, StreamFailed
from sandcell_wire.words import NO_NUL, whole

CommandLine = Annotated[str, StringConstraints(min_length=1, max_length=1 << 17, pattern=NO_NUL)]
Program = Annotated[list[NoNul], Field(min_length=1, max_length=4096)]
CommandState = Literal["queued", "running", "exited", "killed", "failed", "unknown"]
Stream = Literal["stdout", "stderr"]
SignalName = Literal[
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGABRT",
    "SIGKILL",
    "SIGUSR1",
    "SIGUSR2",
    "SIGALRM",
    "SIGTERM",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGWINCH",
]
"""Those that people send; all others have a number."""


class CommandRun(Model):
    """Body of `POST /v1/sessions/{id}/commands`."""

    command: CommandLine | Program
    """A line for the shell (bash, else sh), or a program and its arguments."""
    id: ExecutionId | None = None
    """Sent again with the same id it is the same command."""
    cwd: Annotated[str, StringConstraints(max_length=4096, pattern=NO_NUL)] | None = None
    """Where it runs: relative to the workspace, or absolute in the sandbox."""
    env: dict[EnvName, NoNul] = Field(
        default_factory=dict, max_length=256, json_schema_extra={"additionalProperties": False}
    )
    """On top of the session's; never listed or logged."""
    stdin: Annotated[str, StringConstraints(max_length=1 << 19)] | None = None
    """Is given to it, and is all it gets, unless it is `interactive`."""
    interactive: StrictBool = False
    """Whether its standard input stays open for `POST …/input`."""
    timeout: Annotated[float, Field(gt=0, le=604_800, strict=True)] | None = None
    """Seconds that it may run; then it gets SIGTERM, and SIGKILL 5 seconds later."""
    background: StrictBool = False
    """Answer at once, and let it run."""


class CommandModel(Answer):
    """One command."""

    id: str
    command: str | list[str]
    status: CommandState
    """`killed` is by a signal, `failed` did not start, `unknown` was lost with its sandbox."""
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    """Whether it was ended because it ran longer than its `timeout`."""
    background: bool = False
    interactive: bool = False
    reason: str | None = None
    """Why it failed, or how it was lost."""
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stdout: str | None = None
    """What it has written, as UTF-8; None where it was not asked for."""
    stderr: str | None = None
    lost_bytes: int = 0
    """Of its output, because there was more than is kept; the oldest go first."""


class CommandList(Answer):
    """Answer of `GET /v1/sessions/{id}/commands`: the newest first, without output."""

    commands: list[CommandModel]
    total: int
    limit: int
    offset: int


class CommandInput(Model):
    """Body of `POST /v1/sessions/{id}/commands/{command_id}/input`."""

    text: Annotated[str, StringConstraints(max_length=1 << 17)] = ""
    at: Annotated[int, Field(ge=0, le=1 << 53), BeforeValidator(whole)] | None = None
    """How many bytes were given before: what is sent again is not given twice."""
    end: StrictBool = False
    """Nothing follows: its standard input is closed."""


class CommandInputTaken(Answer):
    """Answer of that."""

    at: int
    """How many bytes were given."""
    closed: bool
    """Whether it takes no more."""


class CommandSignal(Model):
    """Body of `POST /v1/sessions/{id}/commands/{command_id}/signal`."""

    signal: Annotated[int, Field(ge=1, le=64), BeforeValidator(whole)] | SignalName = "SIGTERM"
    """Name or number; its whole process group gets it."""


class CommandStarted(Answer):
    """First line of a stream."""

    type: Literal["started"] = "started"
    command: CommandModel


class CommandOutput(Answer):
    """A line of a stream: what it has written."""

    type: Literal["output"] = "output"
    stream: Stream
    text: str
    position: int
    """Bytes of both streams up to here: with `after` a later stream goes on behind it."""


class CommandLost(Answer):
    """A line of a stream: so many bytes were dropped here, because nobody followed."""

    type: Literal["lost"] = "lost"
    bytes: int


class CommandEnded(Answer):
    """Last line of a stream."""

    type: Literal["ended"] = "ended"
    command: CommandModel


CommandEvent = Annotated[
    CommandStarted | CommandOutput | CommandLost | CommandEnded | StreamFailed,
    Field(discriminator="type"),
]
