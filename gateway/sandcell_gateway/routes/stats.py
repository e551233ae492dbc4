"""`/v1/stats`: your sessions in numbers, and the gateway that has them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from sandcell_gateway.routes.sessions import Caller
from sandcell_gateway.sessions.stats import StatsService
from sandcell_wire.models import Stats

router = APIRouter(prefix="/v1", tags=["gateway"])


def stats_of(request: Request) -> StatsService:
    """The dependency that finds the service."""
    service: StatsService = request.app.state.stats
    return service


@router.get("/stats")
async def get_stats(service: Annotated[StatsService, Depends(stats_of)], caller: Caller) -> Stats:
    """How many of your sessions are in each status, and what the gateway has for them."""
    return await service.stats(caller)
