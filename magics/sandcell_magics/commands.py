"""The `%sandbox` commands: a parser over one SDK call and results to render.

No IPython here: the local kernel and the command line use these, too. Every face
shows the same words. Users' mistakes are `UsageError`s of one line.
"""

from __future__ import annotations

import difflib
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from sandcell_magics import execution_commands, session_commands
from sandcell_magics.arguments import Parser, count, seconds, split
from sandcell_magics.context import Context, UsageError
from sandcell_magics.results import Result, Table


def _nothing(parser: Parser) -> None:
    """The command takes no arguments."""


def _start(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME")


def _attach(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME")


def _replay(parser: Parser) -> None:
    parser.add_argument("count", nargs="?", type=count, default=1, metavar="N")


def _wait(parser: Parser) -> None:
    parser.add_argument("ids", nargs="*", metavar="JOB")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS")


def _result(parser: Parser) -> None:
    parser.add_argument("id", metavar="JOB")


@dataclass(frozen=True)
class Command:
    """One word after `%sandbox`."""

    name: str
    help: str
    run: Callable[[Context, Namespace], AsyncIterator[Result]]
    arguments: Callable[[Parser], None] = _nothing

    def parser(self) -> Parser:
        """For the words after it."""
        parser = Parser(f"%sandbox {self.name}")
        self.arguments(parser)
        return parser

    @property
    def usage(self) -> str:
        """How it is typed."""
        return " ".join(self.parser().format_usage().removeprefix("usage: ").split())


async def _help(context: Context, options: Namespace) -> AsyncIterator[Result]:
    rows = [(command.usage, command.help) for command in COMMANDS.values()]
    rows.append(
        ("%%sandbox --detach [--webhook URL]", "Start the cell's code and go on; see jobs.")
    )
    yield Table(("command", "what it does"), tuple(rows))


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("status", "Show the session: status, reason, engine.", session_commands.status),
        Command("list", "List your live sessions.", session_commands.list_sessions),
        Command(
            "start", "Start a new session; one with a name is kept.", session_commands.start, _start
        ),
        Command(
            "attach",
            "Use another session; show what was missed of it.",
            session_commands.attach,
            _attach,
        ),
        Command(
            "replay",
            "Show the outputs of the last N cells again.",
            execution_commands.replay,
            _replay,
        ),
        Command("jobs", "List the cells that were started detached.", execution_commands.jobs),
        Command("wait", "Wait for jobs; without a name for all.", execution_commands.wait, _wait),
        Command("result", "Show what a job put out.", execution_commands.result, _result),
        Command(
            "restart",
            "Start a fresh interpreter; files and packages stay.",
            session_commands.restart,
        ),
        Command("close", "Close the session and discard it.", session_commands.close),
        Command("help", "List the commands.", _help),
    )
}


def parse(line: str) -> tuple[Command, Namespace]:
    """The command of a line and its arguments. Raises `UsageError`; nothing is guessed."""
    name, *rest = split(line) or ["help"]
    if name not in COMMANDS:
        begin = [known for known in COMMANDS if known.startswith(name)]
        near = begin or difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean %sandbox {near[0]}?" if near else "see %sandbox help"
        raise UsageError(f"there is no command %sandbox {name}; {hint}")
    return COMMANDS[name], COMMANDS[name].parser().parse_args(rest)


def _cell_options(line: str) -> Namespace:
    words = split(line)
    if words and words[0] in COMMANDS:
        raise UsageError(
            f"%sandbox {words[0]} is a line: write it with one %, above the code of a cell"
        )
    parser = Parser("%%sandbox")
    parser.add_argument("--detach", action="store_true", required=True)
    parser.add_argument("--webhook", metavar="URL")
    return parser.parse_args(words)


def run(line: str, context: Context, body: str | None = None) -> AsyncIterator[Result]:
    """Do what one line says, or one `%%sandbox` cell with its body.

    Raises `UsageError` or `SandcellError`.
    """
    if body is not None:
        return execution_commands.detach(context, _cell_options(line), body)
    command, options = parse(line)
    return command.run(context, options)
