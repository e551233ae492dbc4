"""`/v1/sessions/{id}/commands`: programs beside the cells, with the same files."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from pydantic import TypeAdapter
from starlette.responses import Response

from sandcell_gateway.openapi import LIVE_SESSION, problems_of, schema_of
from sandcell_gateway.routes.pages import Limit, Offset
from sandcell_gateway.routes.sessions import Caller
from sandcell_gateway.routes.streams import stream
from sandcell_gateway.sessions.code import LOOK
from sandcell_gateway.sessions.commands import CommandService, Event
from sandcell_gateway.sessions.service import Page
from sandcell_wire.codes import Code
from sandcell_wire.commands import (
    CommandEvent,
    CommandInput,
    CommandInputTaken,
    CommandList,
    CommandModel,
    CommandRun,
    CommandSignal,
)
from sandcell_wire.models import StreamFailed
from sandcell_wire.words import EXECUTION_ID, NDJSON

router = APIRouter(prefix="/v1/sessions/{session_id}/commands", tags=["commands"])

_EVENT = TypeAdapter[Event | StreamFailed](CommandEvent)
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {"schema": schema_of(CommandEvent)}}}
}
_COMMAND = (*LIVE_SESSION, Code.NOT_FOUND)
"""What can be wrong with a command that was started."""


def commands_of(request: Request) -> CommandService:
    """The dependency that finds the service."""
    return CommandService(request.app.state.service)


Service = Annotated[CommandService, Depends(commands_of)]
CommandId = Annotated[str, Path(pattern=EXECUTION_ID)]


@router.post(
    "",
    response_model=CommandModel,
    responses={**_STREAMED, **problems_of(*LIVE_SESSION, Code.QUOTA_EXCEEDED)},
)
async def run_command(
    session_id: UUID,
    body: CommandRun,
    service: Service,
    caller: Caller,
    request: Request,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> CommandModel | Response:
    """Run a command beside what runs there, and answer when it has ended, with what it wrote.

    With `background` the answer comes at once. With `Accept: application/x-ndjson` it is a
    stream of JSON lines: `started`, each `output` as it comes, and `ended`, or `failed` with
    a problem document. The command goes on when the client is gone: sent again with the same
    `id`, it is the same command.
    """
    running = await service.start(caller, str(session_id), body)
    if NDJSON in accept:
        return stream(request, service.follow(running), _EVENT)
    return running.model if body.background else await service.wait(running)


@router.get("", responses=problems_of(*LIVE_SESSION))
async def list_commands(
    session_id: UUID, service: Service, caller: Caller, limit: Limit = 100, offset: Offset = 0
) -> CommandList:
    """What runs and ran, the newest first, without output."""
    return await service.list(caller, str(session_id), Page(limit, offset))


@router.get(
    "/{command_id}",
    response_model=CommandModel,
    responses={**_STREAMED, **problems_of(*_COMMAND)},
)
async def get_command(
    session_id: UUID,
    command_id: CommandId,
    service: Service,
    caller: Caller,
    request: Request,
    wait: Annotated[float, Query(ge=0, le=LOOK)] = 0.0,
    after: Annotated[int, Query(ge=0, le=1 << 53)] = 0,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> CommandModel | Response:
    """One command with its output, when it has ended or after `wait` seconds.

    With `Accept: application/x-ndjson` a stream of what it writes, from behind the position
    `after` to its end.
    """
    running = await service.find(caller, str(session_id), command_id)
    if NDJSON in accept:
        return stream(request, service.follow(running, after), _EVENT)
    return await service.wait(running, wait)


@router.post("/{command_id}/input", responses=problems_of(*_COMMAND, Code.CONFLICT))
async def write_input(
    session_id: UUID,
    command_id: CommandId,
    body: CommandInput,
    service: Service,
    caller: Caller,
) -> CommandInputTaken:
    """Give an `interactive` command input; answers when it has room for it."""
    return await service.write(caller, str(session_id), command_id, body)


@router.post("/{command_id}/signal", responses=problems_of(*_COMMAND, Code.CONFLICT))
async def send_signal(
    session_id: UUID,
    command_id: CommandId,
    body: CommandSignal,
    service: Service,
    caller: Caller,
) -> CommandModel:
    """Send a signal to a command and the processes it has started."""
    return await service.signal(caller, str(session_id), command_id, body.signal)


@router.delete("/{command_id}", responses=problems_of(*_COMMAND, Code.CONFLICT))
async def kill_command(
    session_id: UUID, command_id: CommandId, service: Service, caller: Caller
) -> CommandModel:
    """End it at once (SIGKILL); harmless when it has ended. It stays listed."""
    return await service.kill(caller, str(session_id), command_id)
