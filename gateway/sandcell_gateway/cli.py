"""The commands `sandcell gateway` and `sandcell doctor`."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from sandcell_gateway import logs, paths
from sandcell_gateway.settings import NOT_AN_OPTION, GatewaySettings, SettingsError, load

LOCK_WAIT = 2.0
"""Seconds to wait for another gateway that may just be ending."""


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every setting; it gets those that were given as keywords."""
    parameters: list[inspect.Parameter] = []
    for name, field in GatewaySettings.model_fields.items():
        if field.json_schema_extra == NOT_AN_OPTION:
            continue
        flag = "--" + name.replace("_", "-")
        shown = "" if field.default_factory or field.default in (None, []) else f"{field.default}"
        option = typer.Option(flag, help=field.description, show_default=shown or False)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[_plain_type(field.annotation), option],
            )
        )

    def run(**given: Any) -> None:
        command(**{key: value for key, value in given.items() if value not in (None, [])})

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def _plain_type(annotation: Any) -> Any:
    """The type of an option: optional, since whatever is not given comes from elsewhere."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is list or annotation in (int, float, Path):
        return annotation | None
    return str | None


def _fail(error: Exception) -> typer.Exit:
    sys.stderr.write(f"error: {error}\n")
    return typer.Exit(1)


@with_settings
def gateway(**given: Any) -> None:
    """Run a gateway in the foreground, on TCP and, with --socket, on a Unix socket."""
    try:
        settings = load(given)
        _check_engine(settings.engine)
        paths.prepare(settings)
        with paths.GatewayLock(settings) as lock, ExitStack() as stack:
            lock.acquire(LOCK_WAIT)
            _run(settings, stack)
    except (SettingsError, paths.Locked) as error:
        raise _fail(error) from error


def _check_engine(name: str) -> None:
    from sandcell_gateway.engines import registry

    known = [registry.AUTO, *registry.names()]
    if name not in known:
        expected = ", ".join(known)
        raise SettingsError(f"setting engine (SANDCELL_ENGINE): expected {expected}, got {name!r}")


def _run(settings: GatewaySettings, stack: ExitStack) -> None:
    import uvloop

    from sandcell_gateway.app import create_app
    from sandcell_gateway.auth import Authenticator, token_from_file
    from sandcell_gateway.engines import cgroups
    from sandcell_gateway.server import listen_tcp, listen_unix, make_server

    logs.configure(settings.log_level)
    cgroups.delegate()
    file = settings.state_dir / paths.TOKEN
    given = settings.token.get_secret_value() if settings.token is not None else None
    token, made = (given, False) if given else token_from_file(file)
    listeners = [stack.enter_context(listen_tcp(settings.host, settings.port))]
    if settings.socket is not None:
        path = settings.socket.absolute()
        listeners.append(stack.enter_context(listen_unix(path)))
        stack.callback(path.unlink, missing_ok=True)

    def started() -> None:
        typer.echo(_how_to_connect(settings, listeners[0], None if given else file))
        if made and sys.stdout.isatty():
            typer.echo(f"  the new token: {token}")

    server = make_server(create_app(settings, Authenticator(token)), started)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=listeners))


def _how_to_connect(settings: GatewaySettings, tcp: socket.socket, file: Path | None) -> str:
    host, port = tcp.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 (compared with, not bound to)
        host = socket.gethostname()
    place = f"[{host}]" if ":" in host else host
    token = f'"$(cat {file})"' if file is not None else "…  # the one this gateway was given"
    lines = [
        f"sandcell gateway at http://{place}:{port}",
        f"  export SANDCELL_URL=http://{place}:{port}",
        f"  export SANDCELL_TOKEN={token}",
    ]
    if settings.socket is not None:
        lines.append(f"  and for uid {os.getuid()} and root on {settings.socket}, without a token")
    return "\n".join(lines)


def doctor(
    json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say what works on this machine and what does not. Exit code 1 when cells cannot run."""
    from sandcell_gateway.doctor import examine

    try:
        report = examine(load(embedded=True))
    except SettingsError as error:
        raise _fail(error) from error
    if json:
        typer.echo(report.to_json())
    else:
        report.show()
    if not report.cells_can_run:
        raise typer.Exit(1)
