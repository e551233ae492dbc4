# Generated from _async by scripts/unasync.py; change it there.
"""What happens to a session, over as many connections as it takes."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from uuid import UUID

from sandcell import _answers, _requests
from sandcell._sync import streams
from sandcell._sync._threads import pause
from sandcell._sync.streams import FIRST_PAUSE
from sandcell._sync.transport import Transport
from sandcell.errors import GatewayUnreachable, RequestInvalid, RequestTimeout, SessionExpiredError
from sandcell_wire.models import SessionEvent, SessionModel
from sandcell_wire.states import FINAL, expand


def events(transport: Transport, session_id: UUID) -> Generator[SessionEvent]:
    """From the present state on, until the session has ended."""
    feed = _answers.EventFeed()
    lines = streams.events(
        transport,
        lambda: _requests.events(session_id, feed.last),
        feed.take,
        lambda event: event is not None and event.type == "terminated",
    )
    with closing(lines) as found:
        for event in found:
            if event is not None:
                yield event


def reach(
    transport: Transport, session_id: UUID, status: Sequence[str], timeout: float
) -> SessionModel:
    """The session when it is in one of these statuses.

    Raises `RequestInvalid` for what is no status, `RequestTimeout`, or `SessionExpiredError` when
    it has ended otherwise.
    """
    deadline = time.monotonic() + timeout
    try:
        wanted = expand(list(status))
    except ValueError as error:
        raise RequestInvalid(str(error)) from None
    while True:
        left = max(0.0, deadline - time.monotonic())
        request = _requests.get(session_id, status, min(left, _requests.MAX_WAIT))
        try:
            model = transport.send(SessionModel, request)
        except GatewayUnreachable:
            if left == 0:
                raise
            pause(min(left, FIRST_PAUSE))
            continue
        if model.status in wanted:
            return model
        if model.status in FINAL:
            raise SessionExpiredError(
                f"session {session_id} is {model.status.value}", hint="Create another."
            )
        if left == 0:
            raise RequestTimeout(
                f"session {session_id} is {model.status.value} after {timeout:g} seconds, "
                f"not {' or '.join(status)}"
            )
