"""Noticing that a job has ended, through dead lines, dead shims and closed sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import structlog

from sandcell_gateway.clock import from_unix
from sandcell_gateway.errors import ShimRefused, ShimUnreachable
from sandcell_wire.codes import Code
from sandcell_wire.models import JobEndedData

WAIT = 300.0
"""Seconds that one request to a shim waits for the job; then it is asked again."""
ANSWER = 20.0
"""Seconds that a shim may take on top of that."""
PAUSE = 0.5
"""Seconds before a shim is asked again that could not be."""
UNKNOWN = "unknown"

_log = structlog.get_logger(__name__)


class LiveSession(Protocol):
    """What is needed of a keeper."""

    @property
    def given_up(self) -> bool:
        """Nothing of the session runs, and nothing will unless somebody asks."""
        ...

    async def request(self, op: str, args: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Ask the session's shim. Raises `ShimUnreachable` or `ShimRefused`."""
        ...


class LiveSessions(Protocol):
    """What is needed of the reconciler."""

    def get(self, session_id: str) -> LiveSession | None:
        """A session that is not final."""
        ...


def job_data(session_id: str, found: Mapping[str, Any]) -> JobEndedData:
    """What a shim's index (`shim.executions.Execution`) says of a job."""
    return JobEndedData.model_validate(
        {
            "session_id": session_id,
            "job_id": found["id"],
            "status": found["status"],
            "execution_count": found["count"],
            "submitted_at": _time(found["submitted"]),
            "started_at": _time(found["started"]),
            "ended_at": _time(found["ended"]),
        }
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else from_unix(seconds)


class JobEnds:
    """Waits for jobs."""

    def __init__(self, sessions: LiveSessions, *, pause: float = PAUSE) -> None:
        self._sessions = sessions
        self._pause = pause

    async def wait(self, known: JobEndedData) -> JobEndedData:
        """How the job ended; what was known of it, and `unknown`, when nobody can say any more.

        So it is for a job whose session was closed or given up before its shim could tell,
        and for one that its shim has no trace of.
        """
        session_id = str(known.session_id)
        wanted = {"id": known.job_id, "seconds": WAIT}
        while (session := self._sessions.get(session_id)) is not None:
            try:
                found = await session.request("wait", wanted, WAIT + ANSWER)
            except ShimUnreachable:
                if session.given_up:
                    break
                await asyncio.sleep(self._pause)
            except ShimRefused as error:
                if error.code is Code.NOT_FOUND:
                    break
                _log.error("cannot wait for a job", job=known.job_id, error=str(error))
                await asyncio.sleep(self._pause)
            else:
                known = job_data(session_id, found)
                if known.ended_at is not None:
                    return known
        return known.model_copy(update={"status": UNKNOWN})
