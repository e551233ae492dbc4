"""The `%sandbox` commands: a parser over one SDK call and a result to render.

No IPython here: the local kernel and the command line use these, too. Every face
shows the same words. Users' mistakes are `UsageError`s of one line.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sandcell import AsyncClient, AsyncSession


class UsageError(ValueError):
    """A command that cannot be understood; one line that says what to type instead."""


class Context(Protocol):
    """What a command works on."""

    @property
    def client(self) -> AsyncClient:
        """The gateway."""
        ...

    async def session(self) -> AsyncSession:
        """The face's current session, as the gateway sees it now. Raises `SandcellError`."""
        ...


@dataclass(frozen=True)
class Table:
    """Rows under headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """Shown in the place of an empty table, or below it."""


@dataclass(frozen=True)
class Card:
    """Facts of one thing."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Text:
    """A line or more."""

    text: str


Result = Table | Card | Text


@dataclass(frozen=True)
class Command:
    """One word after `%sandbox`."""

    name: str
    help: str
    run: Callable[[Context], Awaitable[Result]]


def _card(session: AsyncSession) -> Card:
    model = session.model
    facts = [
        ("status", model.status.value),
        ("id", str(model.id)),
        ("engine", model.engine if model.isolated else f"{model.engine} (isolates nothing)"),
        ("since", model.created_at.strftime("%Y-%m-%d %H:%M:%S UTC")),
    ]
    if model.reason is not None:
        facts.insert(1, ("reason", model.reason.text))
    return Card(model.name or f"session {str(model.id)[:8]}", tuple(facts))


async def _status(context: Context) -> Result:
    return _card(await context.session())


async def _list(context: Context) -> Result:
    sessions = await context.client.sessions.list()
    rows = tuple(
        (str(s.id)[:8], s.name or "", s.status.value, s.model.created_at.strftime("%H:%M:%S"))
        for s in sessions
    )
    return Table(("id", "name", "status", "since"), rows, "" if rows else "no sessions")


async def _restart(context: Context) -> Result:
    await (await context.session()).restart()
    return Text("A fresh interpreter is ready; files and packages are kept.")


async def _close(context: Context) -> Result:
    session = await context.session()
    await session.close()
    return Text(f"Session {str(session.id)[:8]} is closed.")


async def _help(context: Context) -> Result:
    rows = tuple((f"%sandbox {command.name}", command.help) for command in COMMANDS.values())
    return Table(("command", "what it does"), rows)


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("status", "Show the session: status, reason, engine.", _status),
        Command("list", "List your live sessions.", _list),
        Command("restart", "Start a fresh interpreter; files and packages stay.", _restart),
        Command("close", "Close the session and discard it.", _close),
        Command("help", "List the commands.", _help),
    )
}


def parse(line: str) -> Command:
    """The command of a line. Raises `UsageError`; abbreviations are not guessed."""
    try:
        words: Sequence[str] = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%sandbox {line}: {error}") from None
    if not words:
        words = ["help"]
    name, *rest = words
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean %sandbox {near[0]}?" if near else "see %sandbox help"
        raise UsageError(f"there is no command %sandbox {name}; {hint}")
    if rest:
        raise UsageError(f"%sandbox {name} takes no arguments, got {' '.join(rest)!r}")
    return COMMANDS[name]


async def run(line: str, context: Context) -> Result:
    """Do what one line says. Raises `UsageError` or `SandcellError`."""
    return await parse(line).run(context)
