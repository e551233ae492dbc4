"""How commands end. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from sandcell.errors import CommandFailed, CommandTimedOut
from sandcell_wire.commands import CommandEnded, CommandEvent, CommandLost, CommandModel
from sandcell_wire.commands import CommandOutput as Output

OnText = Callable[[str], object]
"""Is called with each piece of a stream as it comes."""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, and all it has written."""

    session_id: UUID
    model: CommandModel
    """Everything that the gateway said of it."""
    stdout: str
    stderr: str
    lost_bytes: int = 0
    """Of its output, because it wrote more than is kept while nobody followed."""

    @property
    def id(self) -> str:
        """Of the command; `session.commands.get` finds it again."""
        return self.model.id

    @property
    def exit_code(self) -> int | None:
        """What it returned; None when a signal ended it."""
        return self.model.exit_code

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended it."""
        return self.model.signal

    @property
    def timed_out(self) -> bool:
        """Whether it was ended because it ran longer than its `timeout`."""
        return self.model.timed_out

    @property
    def ok(self) -> bool:
        """Whether it returned 0."""
        return self.model.exit_code == 0

    def raise_for_error(self) -> Self:
        """Itself, if it returned 0. Raises `CommandFailed` or `CommandTimedOut`."""
        if self.ok:
            return self
        if self.timed_out:
            raise CommandTimedOut("the command ran longer than its timeout", result=self)
        raise CommandFailed(self._why(), result=self)

    def _why(self) -> str:
        if self.model.exit_code is not None:
            return f"the command exited with code {self.model.exit_code}"
        if self.model.signal is not None:
            return f"the command was killed by signal {self.model.signal}"
        return f"the command {self.model.status}: {self.model.reason}"


class Progress:
    """How far the stream of one command has come."""

    def __init__(
        self, session_id: UUID, on_stdout: OnText | None = None, on_stderr: OnText | None = None
    ) -> None:
        self._session_id = session_id
        self._on = {"stdout": on_stdout, "stderr": on_stderr}
        self._texts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._lost = 0
        self.position = 0
        """Behind the output that came last."""
        self.model: CommandModel | None = None
        """How it ended."""
        self.has_begun = False
        """Whether the gateway has it."""

    def take(self, event: CommandEvent) -> None:
        """One event."""
        self.has_begun = True
        match event:
            case Output(stream=stream, text=text, position=position):
                self.position = position
                self._texts[stream].append(text)
                on_text = self._on[stream]
                if on_text is not None:
                    on_text(text)
            case CommandLost(bytes=count):
                self._lost += count
            case CommandEnded(command=command):
                self.model = command
            case _:
                pass

    def result(self) -> CommandResult:
        """What it came to, after the last event."""
        assert self.model is not None
        stdout, stderr = ("".join(pieces) for pieces in self._texts.values())
        return CommandResult(self._session_id, self.model, stdout, stderr, self._lost)
