# Generated from _async by scripts/unasync.py; change it there.
"""Commands in a session: programs beside its cells, with the same files."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from uuid import UUID, uuid4

from sandcell import _answers, _requests
from sandcell._sync import streams
from sandcell._sync.transport import Transport
from sandcell.command_results import CommandResult, OnText, Progress
from sandcell_wire.commands import (
    CommandEvent,
    CommandInputTaken,
    CommandList,
    CommandModel,
)


class Command:
    """A command that was started. What it shows is as new as the last answer."""

    def __init__(
        self, transport: Transport, session_id: UUID, model: CommandModel, written: int | None
    ) -> None:
        self._transport = transport
        self._session_id = session_id
        self._written = written
        self.model = model
        """Everything that the gateway said of it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def id(self) -> str:
        """Never changes."""
        return self.model.id

    @property
    def status(self) -> str:
        """`queued`, `running`, `exited`, `killed`, `failed` or `unknown`."""
        return self.model.status

    def refresh(self) -> Command:
        """Ask the gateway how it is."""
        request = _requests.get_command(self._session_id, self.id)
        self.model = self._transport.send(CommandModel, request)
        return self

    def follow(self, *, after: int = 0) -> Generator[CommandEvent]:
        """What it writes, from its beginning or from behind a `position`, to its end.

        A line that breaks is had again. Raises `GatewayUnreachable` when it stays away.
        """
        progress = Progress(self._session_id)
        progress.position = after
        events = streams.events(
            self._transport,
            lambda: _requests.follow_command(self._session_id, self.id, progress.position),
            _answers.command_event,
            _answers.is_end,
        )
        with closing(events):
            for event in events:
                progress.take(event)
                yield event
        assert progress.model is not None
        self.model = progress.model

    def wait(
        self, *, on_stdout: OnText | None = None, on_stderr: OnText | None = None
    ) -> CommandResult:
        """Until it has ended; what it has written, from its beginning.

        `on_stdout` and `on_stderr` are called with each piece as it comes.
        """
        progress = Progress(self._session_id, on_stdout, on_stderr)
        with closing(self.follow()) as events:
            for event in events:
                progress.take(event)
        return progress.result()

    def write(self, text: str, *, end: bool = False) -> None:
        """Give an `interactive` command input; with `end` nothing follows.

        Returns when it has room for it. Raises `ConflictError` when it takes none.
        """
        pieces = _requests.input_pieces(text)
        for number, piece in enumerate(pieces, 1):
            request = _requests.write_command(
                self._session_id, self.id, piece, self._written, end=end and number == len(pieces)
            )
            self._written = (self._transport.send(CommandInputTaken, request)).at

    def signal(self, signal: int | str = "SIGTERM") -> None:
        """Send it, and the processes it has started, a signal.

        Raises `ConflictError` when it has ended.
        """
        request = _requests.signal_command(self._session_id, self.id, signal)
        self.model = self._transport.send(CommandModel, request)

    def kill(self) -> None:
        """End it at once. Harmless when it has ended."""
        request = _requests.kill_command(self._session_id, self.id)
        self.model = self._transport.send(CommandModel, request)


class Commands:
    """A session's commands."""

    def __init__(self, transport: Transport, session_id: UUID) -> None:
        self._transport = transport
        self._session_id = session_id

    def run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        id: str | None = None,
    ) -> CommandResult:
        """Run a command to its end: a line for the shell, or a program and its arguments.

        `cwd` is relative to the workspace, or absolute in the sandbox; `stdin` is all it is
        given to read. After `timeout` seconds it is ended. `on_stdout` and `on_stderr` are
        called with each piece as it comes. When the line breaks the command goes on, and so
        does this as soon as the line is back. Calls with the same `id`, 8 to 64 letters,
        digits and hyphens, are one command. Raises `RequestInvalid` for what cannot be run;
        a command that fails is a result.
        """
        progress = Progress(self._session_id, on_stdout, on_stderr)
        command_id = id or uuid4().hex
        request = _requests.run_command(
            self._session_id,
            command,
            command_id,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout=timeout,
        )
        events = streams.events(
            self._transport,
            lambda: (
                _requests.follow_command(self._session_id, command_id, progress.position)
                if progress.has_begun
                else request
            ),
            _answers.command_event,
            _answers.is_end,
        )
        with closing(events):
            for event in events:
                progress.take(event)
        return progress.result()

    def start(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        interactive: bool = False,
        timeout: float | None = None,
        id: str | None = None,
    ) -> Command:
        """Start a command and return at once; it goes on when nobody is connected.

        With `interactive` its input stays open for `AsyncCommand.write`. The rest is as in
        `run`. Raises `QuotaExceeded` when too many run.
        """
        request = _requests.run_command(
            self._session_id,
            command,
            id or uuid4().hex,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout=timeout,
            interactive=interactive,
            background=True,
        )
        model = self._transport.send(CommandModel, request)
        written = len((stdin or "").encode())
        return Command(self._transport, self._session_id, model, written)

    def list(self, *, limit: int = 100, offset: int = 0) -> Sequence[Command]:
        """Those that run and ran, the newest first."""
        request = _requests.list_commands(self._session_id, limit, offset)
        page = self._transport.send(CommandList, request)
        return [
            Command(self._transport, self._session_id, model, None) for model in page.commands
        ]

    def get(self, id: str) -> Command:
        """One of them. Raises `NotFoundError`."""
        request = _requests.get_command(self._session_id, id)
        model = self._transport.send(CommandModel, request)
        return Command(self._transport, self._session_id, model, None)
