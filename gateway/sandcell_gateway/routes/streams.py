"""Answers that are streams of JSON lines."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from pydantic import TypeAdapter
from starlette.responses import StreamingResponse

from sandcell_gateway.middleware import REQUEST_ID
from sandcell_gateway.problems import problem_of
from sandcell_gateway.routes.streaming import with_heartbeat
from sandcell_wire.models import StreamFailed
from sandcell_wire.words import NDJSON

T = TypeVar("T")


def stream(
    request: Request, events: AsyncGenerator[T], adapter: TypeAdapter[Any]
) -> StreamingResponse:
    """The events, a line each; a failure is the last line (`StreamFailed`)."""
    lines = _lines(events, adapter, getattr(request.state, REQUEST_ID))
    return StreamingResponse(lines, media_type=NDJSON, headers={"Cache-Control": "no-store"})


async def _lines(
    coming: AsyncGenerator[T], adapter: TypeAdapter[Any], request_id: str
) -> AsyncGenerator[bytes]:
    async with aclosing(coming) as events:
        try:
            async for event in with_heartbeat(events):
                yield b"\n" if event is None else adapter.dump_json(event) + b"\n"
        except Exception as error:
            problem = problem_of(error, request_id)
            yield adapter.dump_json(StreamFailed(problem=problem), exclude_none=True) + b"\n"
