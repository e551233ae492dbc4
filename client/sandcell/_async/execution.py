"""Running code, and hearing what it shows, whatever happens to the line."""

from __future__ import annotations

from contextlib import aclosing
from uuid import UUID

from sandcell import _answers, _requests
from sandcell._async import streams
from sandcell._async.transport import AsyncTransport
from sandcell.results import ExecutionResult, OnOutput, Progress


async def execute(
    transport: AsyncTransport,
    session_id: UUID,
    code: str,
    id: str,
    *,
    timeout: float | None,
    on_output: OnOutput | None,
) -> ExecutionResult:
    """Run code to its end; with the same `id` it is the same execution."""
    request = _requests.execute(session_id, code, id, timeout)
    progress = Progress(session_id, on_output)
    events = streams.events(transport, lambda: request, _answers.execution_event, _answers.is_end)
    async with aclosing(events):
        async for event in events:
            progress.take(event)
    return progress.result()
