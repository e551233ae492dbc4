"""A job's end is noticed, whatever becomes of line, shim and session."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from sandcell_gateway.errors import ShimRefused, ShimUnreachable
from sandcell_gateway.webhooks.jobs import JobEnds, job_data
from sandcell_wire.codes import Code
from sandcell_wire.models import JobEndedData

SESSION = str(uuid4())
RUNNING = {
    "id": "job-1234",
    "client": "jobs",
    "first": 1,
    "last": None,
    "submitted": 100.0,
    "started": 101.5,
    "ended": None,
    "status": "running",
    "count": None,
    "detached": True,
}
ENDED = {**RUNNING, "ended": 103.0, "last": 9, "status": "ok", "count": 4}
KNOWN = job_data(SESSION, {**RUNNING, "started": None, "status": "queued"})


class Keeper:
    """Gives the answers of a script; then the session is given up."""

    def __init__(self, *script: Mapping[str, Any] | Exception) -> None:
        self.script = list(script)
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    @property
    def given_up(self) -> bool:
        return not self.script

    async def request(self, op: str, args: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        self.asked.append((op, args))
        if not self.script:
            raise ShimUnreachable("it is gone")
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


class Sessions:
    def __init__(self, keeper: Keeper | None) -> None:
        self.keeper = keeper

    def get(self, session_id: str) -> Keeper | None:
        assert session_id == SESSION
        return self.keeper


async def ended(*script: Mapping[str, Any] | Exception) -> JobEndedData:
    return await JobEnds(Sessions(Keeper(*script)), pause=0).wait(KNOWN)


async def test_the_end_as_the_shim_tells_it() -> None:
    found = await ended(RUNNING, RUNNING, ENDED)
    assert (found.status, found.execution_count, str(found.session_id)) == ("ok", 4, SESSION)
    assert found.submitted_at == datetime(1970, 1, 1, 0, 1, 40, tzinfo=UTC)
    assert found.started_at == datetime(1970, 1, 1, 0, 1, 41, 500_000, tzinfo=UTC)
    assert found.ended_at == datetime(1970, 1, 1, 0, 1, 43, tzinfo=UTC)


async def test_lines_that_break_are_made_again() -> None:
    lost = ShimUnreachable("the line ended")
    assert (await ended(lost, RUNNING, lost, lost, ENDED)).status == "ok"


async def test_a_shim_that_fails_is_asked_again() -> None:
    failed = ShimRefused(Code.INTERNAL_ERROR, "it failed")
    assert (await ended(failed, failed, ENDED)).status == "ok"


async def test_a_session_that_is_given_up_leaves_what_was_known() -> None:
    assert await ended(RUNNING) == job_data(SESSION, {**RUNNING, "status": "unknown"})


async def test_a_session_that_is_final_leaves_what_was_known() -> None:
    found = await JobEnds(Sessions(None)).wait(KNOWN)
    assert found == KNOWN.model_copy(update={"status": "unknown"})


async def test_a_job_of_which_the_shim_has_no_trace() -> None:
    assert (await ended(ShimRefused(Code.NOT_FOUND, "none"), ENDED)).status == "unknown"


@pytest.mark.parametrize("status", ["ok", "error", "aborted", "unknown"])
async def test_every_end_is_an_end(status: str) -> None:
    assert (await ended({**ENDED, "status": status})).status == status


async def test_the_shim_is_asked_for_this_job() -> None:
    keeper = Keeper(ENDED)
    await JobEnds(Sessions(keeper)).wait(KNOWN)
    ((op, args),) = keeper.asked
    assert (op, args["id"]) == ("wait", "job-1234")
    assert args["seconds"] > 0
