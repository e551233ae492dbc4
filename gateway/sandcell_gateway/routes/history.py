"""`/v1/sessions/{id}/history` and `/jobs`: what ran, and what runs without anybody waiting."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from sandcell_gateway.openapi import LIVE_SESSION, problems_of
from sandcell_gateway.routes.pages import Limit, Offset
from sandcell_gateway.routes.sessions import Caller
from sandcell_gateway.sessions.history import MAX_WAIT, HistoryService
from sandcell_gateway.sessions.service import Page
from sandcell_wire.codes import Code
from sandcell_wire.models import ExecutionModel, History, JobCreate, Notebook

router = APIRouter(prefix="/v1/sessions/{session_id}", tags=["history"])


def history_of(request: Request) -> HistoryService:
    """The dependency that finds the service."""
    return HistoryService(request.app.state.service, request.app.state.webhooks)


Service = Annotated[HistoryService, Depends(history_of)]


@router.get("/history", responses=problems_of(*LIVE_SESSION))
async def get_history(
    session_id: UUID,
    service: Service,
    caller: Caller,
    limit: Limit = 100,
    offset: Offset = 0,
    newest: bool = False,
    outputs: bool = True,
) -> History:
    """Executions in the order in which they were asked for, or the newest first."""
    page = Page(limit, offset)
    return await service.page(caller, str(session_id), page, outputs=outputs, newest=newest)


@router.get("/history.ipynb", responses=problems_of(*LIVE_SESSION))
async def get_notebook(session_id: UUID, service: Service, caller: Caller) -> Notebook:
    """The history as a notebook, each execution a cell."""
    return await service.notebook(caller, str(session_id))


@router.get("/history/{execution_id}", responses=problems_of(*LIVE_SESSION, Code.NOT_FOUND))
async def get_execution(
    session_id: UUID, execution_id: str, service: Service, caller: Caller
) -> ExecutionModel:
    """One execution with its outputs."""
    return await service.get(caller, str(session_id), execution_id)


@router.post("/jobs", responses=problems_of(*LIVE_SESSION, Code.CONFLICT, Code.QUOTA_EXCEEDED))
async def start_job(
    session_id: UUID, body: JobCreate, service: Service, caller: Caller
) -> ExecutionModel:
    """Start code that goes on when nobody is connected; `webhook` is told when it has ended."""
    return await service.run(caller, str(session_id), body)


@router.get("/jobs", responses=problems_of(*LIVE_SESSION))
async def list_jobs(
    session_id: UUID, service: Service, caller: Caller, limit: Limit = 100, offset: Offset = 0
) -> History:
    """What was started so, the newest first, without outputs."""
    page = Page(limit, offset)
    return await service.page(
        caller, str(session_id), page, outputs=False, newest=True, detached=True
    )


@router.get("/jobs/{job_id}", responses=problems_of(*LIVE_SESSION, Code.NOT_FOUND))
async def get_job(
    session_id: UUID,
    job_id: str,
    service: Service,
    caller: Caller,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0.0,
) -> ExecutionModel:
    """One job with its outputs; with `wait` when it has ended, or after so many seconds."""
    return await service.get(caller, str(session_id), job_id, wait)
