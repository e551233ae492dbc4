# Generated from _async by scripts/unasync.py; change it there.
"""Running code, and hearing what it shows, whatever happens to the line."""

from __future__ import annotations

import time
from contextlib import closing
from uuid import UUID

from sandcell import _requests
from sandcell._sync._threads import pause
from sandcell._sync.transport import ATTEMPTS, Transport
from sandcell._requests import ApiRequest
from sandcell.errors import GatewayUnreachable, HostDisconnected
from sandcell.results import ExecutionResult, OnOutput, Progress

RESUME_SECONDS = 60.0
"""How long a broken stream is tried to be had again; the code runs on."""
FIRST_PAUSE, MAX_PAUSE = 0.2, 5.0
"""Bounds of the wait between two attempts, in seconds."""


def execute(
    transport: Transport,
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
    wait, attempts, broken_at = FIRST_PAUSE, 0, time.monotonic()
    while True:
        events = progress.events
        try:
            return _listen(transport, request, progress)
        except (GatewayUnreachable, HostDisconnected):
            if progress.events > events:
                wait, broken_at = FIRST_PAUSE, time.monotonic()
            attempts += 1
            has_begun = progress.events > 0
            if has_begun and time.monotonic() - broken_at > RESUME_SECONDS:
                raise
            if not has_begun and attempts >= ATTEMPTS:
                raise
        pause(wait)
        wait = min(wait * 2, MAX_PAUSE)


def _listen(
    transport: Transport, request: ApiRequest, progress: Progress
) -> ExecutionResult:
    with closing(transport.lines(request)) as lines:
        for line in lines:
            result = progress.take(_requests.event_of(line))
            if result is not None:
                return result
    raise GatewayUnreachable("the gateway ended its answer too early", hint="Its log says more.")
