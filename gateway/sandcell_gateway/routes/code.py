"""`/v1/sessions/{id}/code`: run code and wait for it."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from pydantic import TypeAdapter
from starlette.responses import Response

from sandcell_gateway.openapi import LIVE_SESSION, problems_of, schema_of
from sandcell_gateway.routes.history import history_of
from sandcell_gateway.routes.sessions import Caller
from sandcell_gateway.routes.streams import stream
from sandcell_gateway.sessions.code import CodeService, Event
from sandcell_wire.codes import Code
from sandcell_wire.models import CodeRun, ExecutionEvent, ExecutionModel, StreamFailed
from sandcell_wire.words import NDJSON

router = APIRouter(prefix="/v1/sessions/{session_id}", tags=["code"])

_EVENT = TypeAdapter[Event | StreamFailed](ExecutionEvent)


def code_of(request: Request) -> CodeService:
    """The dependency that finds the service."""
    return CodeService(request.app.state.service, history_of(request))


@router.post(
    "/code",
    response_model=ExecutionModel,
    responses={
        200: {"content": {NDJSON: {"schema": schema_of(ExecutionEvent)}}},
        **problems_of(*LIVE_SESSION, Code.CONFLICT),
    },
)
async def run_code(
    session_id: UUID,
    body: CodeRun,
    service: Annotated[CodeService, Depends(code_of)],
    caller: Caller,
    request: Request,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> ExecutionModel | Response:
    """Run code behind what runs there, and answer when it has ended, with what it has shown.

    With `Accept: application/x-ndjson` the answer is a stream of JSON lines: `started`, each
    `output` as it comes, and `ended`, or `failed` with a problem document. Empty lines only
    show that the line stands. It goes on when the client is gone: sent again with the same
    `id`, it is the same execution, from its beginning.
    """
    if NDJSON not in accept:
        return await service.run(caller, str(session_id), body)
    running = await service.start(caller, str(session_id), body)
    return stream(request, service.follow(running), _EVENT)
