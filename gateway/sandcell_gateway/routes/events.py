"""`/v1/sessions/{id}/events`: what happens to a session, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, get_args
from uuid import UUID

from fastapi import APIRouter, Header, Request
from starlette.responses import Response, StreamingResponse

from sandcell_gateway.openapi import SESSION, problems_of, schema_of
from sandcell_gateway.routes.sessions import Caller, Service
from sandcell_gateway.routes.streaming import until_stopping, with_heartbeat
from sandcell_gateway.sessions.events import Happening
from sandcell_wire.models import SessionEvent, SessionEventType

router = APIRouter(prefix="/v1/sessions/{session_id}", tags=["sessions"])

EVENT_STREAM = "text/event-stream"
COMMENT = b": still there\n\n"
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "One event.",
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": get_args(SessionEventType)},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": schema_of(SessionEvent),
        },
    },
    "required": ["event", "data"],
}
_EXAMPLE = """\
id: 5be1c1a10d3a-7
event: status_changed
data: {"type":"status_changed","session_id":"0d3a7c52-6f0e-4b3c-9a43-5f1f0c9d2e11",\
"old":"active","new":"idle","reason":null,"at":"2026-01-01T12:00:00Z"}

"""


@router.get(
    "/events",
    response_class=Response,
    responses={
        200: {"content": {EVENT_STREAM: {"schema": _SCHEMA, "example": _EXAMPLE}}},
        **problems_of(*SESSION),
    },
)
async def get_events(
    session_id: UUID,
    service: Service,
    caller: Caller,
    request: Request,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=64)] = None,
) -> StreamingResponse:
    """Its changes of status as server-sent events: `status_changed`, `error`, `terminated`.

    The present state comes first, with `old` null; with `Last-Event-ID` what came after that
    event, as far as this gateway has kept it. The stream ends when the session has ended.
    Comments only show that the line stands.
    """
    happenings = await service.events(caller, str(session_id), last_event_id)
    stopping: asyncio.Event = request.app.state.stopping
    return StreamingResponse(
        _stream(happenings, stopping),
        media_type=EVENT_STREAM,
        # Proxies must not collect it.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(
    happenings: AsyncGenerator[Happening], stopping: asyncio.Event
) -> AsyncGenerator[bytes]:
    ending = until_stopping(happenings, stopping)
    async with aclosing(happenings), aclosing(ending), aclosing(with_heartbeat(ending)) as events:
        async for each in events:
            yield COMMENT if each is None else _written(each)


def _written(happening: Happening) -> bytes:
    event = happening.event
    lines = [f"event: {event.type}", f"data: {event.model_dump_json()}", "", ""]
    return "\n".join([*([f"id: {happening.id}"] if happening.id else []), *lines]).encode()
