"""`sandcell`: the sessions of a gateway on the command line, and the commands of other parts.

Other parts add commands through the entry-point group `sandcell.commands`; a part is
imported when its command is run or help is asked for. A user's error is one line.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sandcell.errors import SandcellError, explain
from sandcell_wire.execution import first_line
from sandcell_wire.words import plain

if TYPE_CHECKING:
    from sandcell._sync.client import Client
    from sandcell._sync.session import Session

PLUGINS = "sandcell.commands"


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGINS)}


def _as_command(name: str, loaded: Any) -> Any:
    """A typer application, or a function, as a command of ours."""
    if isinstance(loaded, typer.Typer):
        command: Any = typer.main.get_group(loaded)
    else:
        application = typer.Typer(add_completion=False)
        application.command(name)(loaded)
        command = typer.main.get_command(application)
    command.name = name
    return command


class PluginGroup(TyperGroup):
    """Our own commands, and those that entry points name."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *_plugins()})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        point = _plugins().get(cmd_name)
        if own is not None or point is None:
            return own
        return _as_command(cmd_name, point.load())


app = typer.Typer(
    cls=PluginGroup,
    help="Sandbox sessions for notebooks and programs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sandcell {version('sandcell')}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Sandbox sessions for notebooks and programs."""


Profile = Annotated[
    str | None, typer.Option(help="Table [profiles.NAME] of config.toml to take values from.")
]


def open_client(profile: str | None) -> Client:
    """The gateway of the settings. Raises `ConfigurationError`."""
    from sandcell._sync.client import Client
    from sandcell.settings import ClientSettings

    return Client(settings=ClientSettings.load(profile=profile))


@app.command()
def sessions(
    status: Annotated[
        list[str] | None,
        typer.Option(help="Only these statuses or groups, also final ones. May be repeated."),
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="Part of the name, or beginning of the id.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most sessions to show.")] = 100,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    profile: Profile = None,
) -> None:
    """List your sessions, the newest first."""
    with open_client(profile) as client:
        found = client.sessions.list(status=status or (), search=search, limit=limit)
    if json:
        for session in found:
            typer.echo(session.model.model_dump_json())
    elif found:
        _table(found)
    else:
        typer.echo("no sessions")


def _table(found: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "NAME", "STATUS", "ENGINE", "CREATED", "WHY"):
        table.add_column(heading, no_wrap=heading == "ID")
    for session in found:
        model = session.model
        cells = (
            str(model.id),
            model.name or "",
            model.status.value,
            model.engine if model.isolated else f"{model.engine} (isolates nothing)",
            model.created_at.astimezone().strftime("%Y-%m-%d %H:%M"),
            _why(session),
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    Console().print(table)


def _why(session: Session) -> str:
    if session.model.journal.value == "altered":
        return "its journal was altered; see `sandcell export` and `sandcell verify`"
    if session.model.closes_at is not None and session.model.status.value != "terminated":
        return f"closes at {session.model.closes_at.astimezone():%H:%M:%S}"
    return session.reason.text if session.reason is not None else ""


@app.command()
def close(
    ids: Annotated[
        list[str], typer.Argument(metavar="ID…", help="Id, name, or unique beginning of an id.")
    ],
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for somebody to attach.")
    ] = 0.0,
    profile: Profile = None,
) -> None:
    """Close sessions; what runs in them ends, their files are deleted."""
    with open_client(profile) as client:
        for word in ids:
            session = client.sessions.get(word).close(grace=grace)
            state = "closes later" if grace else session.status.value
            typer.echo(f"{session.id} {state}")


@app.command()
def history(
    session: Annotated[
        str, typer.Argument(metavar="ID", help="Id, name, or unique beginning of an id.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write a notebook with all outputs there."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most executions to show.")] = 20,
    profile: Profile = None,
) -> None:
    """Show what ran in a session, the newest last, or write it as a notebook."""
    with open_client(profile) as client:
        found = client.sessions.get(session)
        if output is not None:
            _write_notebook(found.notebook(), output)
            return
        page = found.history(limit=limit, newest=True, outputs=False)
    for execution in reversed(page.executions):
        count = execution.execution_count or " "
        first, is_cut = first_line(execution.code)
        line = f"{execution.submitted_at.astimezone():%m-%d %H:%M:%S} {execution.status:8} "
        typer.echo(plain(f"{line}[{count}] {first}{' …' if is_cut else ''}"))


@app.command()
def export(
    session: Annotated[
        str, typer.Argument(metavar="ID", help="Id, name, or unique beginning of an id.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")],
    profile: Profile = None,
) -> None:
    """Write all that was recorded of a session, signed, to a file for `sandcell verify`."""
    with open_client(profile) as client:
        found = client.sessions.get(session)
        try:
            found.export(output)
        except SandcellError:
            raise
        except OSError as error:
            raise SandcellError(f"cannot write {output}: {error.strerror}") from error
        newest = found.proofs(limit=1).proofs[0]
    typer.echo(f"{output}: signed up to record {newest.seq} with the key {newest.key_id}")


def _write_notebook(notebook: dict[str, Any], path: Path) -> None:
    import json

    try:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise SandcellError(f"cannot write {path}: {error.strerror}") from error
    cells = len(notebook["cells"])
    typer.echo(f"{path}: {cells} cell{'' if cells == 1 else 's'}")


def main() -> None:
    """The program `sandcell`. A user's error is one line, ours a traceback."""
    try:
        app()
    except SandcellError as error:
        sys.stderr.write(f"error: {plain(explain(error))}\n")
        sys.exit(1)
