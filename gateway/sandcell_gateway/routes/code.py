"""`/v1/sessions/{id}/code`: run code and wait for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from pydantic import TypeAdapter
from starlette.responses import Response, StreamingResponse

from sandcell_gateway.middleware import REQUEST_ID
from sandcell_gateway.openapi import LIVE_SESSION, problems_of, schema_of
from sandcell_gateway.problems import problem_of
from sandcell_gateway.routes.history import history_of
from sandcell_gateway.routes.sessions import Caller
from sandcell_gateway.routes.streaming import with_heartbeat
from sandcell_gateway.sessions.code import CodeService, Event, Running
from sandcell_wire.codes import Code
from sandcell_wire.models import CodeRun, ExecutionEvent, ExecutionModel, StreamFailed

router = APIRouter(prefix="/v1/sessions/{session_id}", tags=["code"])

NDJSON = "application/x-ndjson"

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
    lines = _lines(service, running, getattr(request.state, REQUEST_ID))
    return StreamingResponse(lines, media_type=NDJSON, headers={"Cache-Control": "no-store"})


async def _lines(service: CodeService, running: Running, request_id: str) -> AsyncGenerator[bytes]:
    async with aclosing(service.follow(running)) as events:
        try:
            async for event in with_heartbeat(events):
                yield b"\n" if event is None else _EVENT.dump_json(event) + b"\n"
        except Exception as error:
            problem = problem_of(error, request_id)
            yield _EVENT.dump_json(StreamFailed(problem=problem), exclude_none=True) + b"\n"
