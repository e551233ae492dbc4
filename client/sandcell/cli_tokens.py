"""`sandcell token`: make, list and revoke the tokens of a gateway."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from sandcell.cli import Profile, open_client
from sandcell_wire.scopes import Scope, words
from sandcell_wire.tokens import TokenModel
from sandcell_wire.units import duration
from sandcell_wire.words import plain

token = typer.Typer(help="Make, list and revoke tokens.", no_args_is_help=True)


@token.callback()
def group() -> None:
    """Make, list and revoke tokens."""


def _seconds(text: str) -> int:
    try:
        return duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@token.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    owner: Annotated[
        str | None, typer.Option(help="Whose sessions it is for. Default: your own.")
    ] = None,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="read looks, run also runs and changes, admin also manages tokens. "
            "May be repeated. Default: run."
        ),
    ] = None,
    expires: Annotated[
        int | None,
        typer.Option(
            parser=_seconds,
            metavar="TIME",
            help="When it ends, such as 12h, 30d or 8w from now. Default: when it is revoked.",
        ),
    ] = None,
    profile: Profile = None,
) -> None:
    """Make a token and print it: it cannot be shown again."""
    with open_client(profile) as client:
        made = client.tokens.create(
            name, owner=owner, scopes=scope or [Scope.RUN], expires_in=expires
        )
    ends = "revoked" if made.expires_at is None else f"{_moment(made.expires_at)}"
    about = f"token {made.id} of {made.owner}: {words(made.scopes)}, valid until {ends}"
    # Not among what `TOKEN=$(sandcell token create …)` takes.
    typer.echo(plain(about), err=True)
    typer.echo(made.token)


@token.command("list")
def list_tokens(
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most tokens to show.")] = 100,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    profile: Profile = None,
) -> None:
    """List your tokens, the newest first, also those that have ended lately."""
    with open_client(profile) as client:
        found = client.tokens.list(limit=limit)
    if json:
        for model in found:
            typer.echo(model.model_dump_json())
    elif found:
        _table(found)
    else:
        typer.echo("no tokens")


@token.command()
def revoke(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, as listed.")],
    profile: Profile = None,
) -> None:
    """Revoke tokens; what is open with them is cut off."""
    with open_client(profile) as client:
        for word in ids:
            typer.echo(f"{client.tokens.revoke(word).id} revoked")


def _table(found: Sequence[TokenModel]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "NAME", "OWNER", "SCOPES", "CREATED", "USED", "STATE"):
        table.add_column(heading, no_wrap=heading == "ID")
    for model in found:
        cells = (
            str(model.id),
            model.name,
            model.owner,
            words(model.scopes),
            _moment(model.created_at),
            _moment(model.last_used_at),
            _state(model),
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    Console().print(table)


def _state(model: TokenModel) -> str:
    if model.revoked_at is not None:
        return f"revoked {_moment(model.revoked_at)}"
    if model.expires_at is None:
        return "valid"
    word = "expired" if model.expires_at <= datetime.now(model.expires_at.tzinfo) else "until"
    return f"{word} {_moment(model.expires_at)}"


def _moment(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"
