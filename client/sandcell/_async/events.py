"""What happens to a session, over as many connections as it takes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from sandcell import _requests
from sandcell._async._threads import pause
from sandcell._async.execution import FIRST_PAUSE, MAX_PAUSE, RESUME_SECONDS
from sandcell._async.transport import AsyncTransport
from sandcell.errors import GatewayUnreachable
from sandcell_wire.models import SessionEvent


async def events(transport: AsyncTransport, session_id: UUID) -> AsyncGenerator[SessionEvent]:
    """From the present state on, until the session has ended."""
    feed = _requests.EventFeed()
    wait, broken_at = FIRST_PAUSE, time.monotonic()
    while True:
        failure = GatewayUnreachable("the gateway ended the stream of events")
        try:
            request = _requests.events(session_id, feed.last)
            async with aclosing(transport.lines(request)) as lines:
                async for line in lines:
                    wait, broken_at = FIRST_PAUSE, time.monotonic()
                    event = feed.take(line)
                    if event is not None:
                        yield event
                        if event.type == "terminated":
                            return
        except GatewayUnreachable as error:
            failure = error
        if time.monotonic() - broken_at > RESUME_SECONDS:
            raise failure
        await pause(wait)
        wait = min(wait * 2, MAX_PAUSE)
