"""What there is: an owner's sessions, and the gateway that has them."""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform

from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import now
from sandcell_gateway.errors import EngineUnavailable
from sandcell_gateway.sessions import limits
from sandcell_gateway.sessions.service import SessionService
from sandcell_gateway.settings import GatewaySettings
from sandcell_wire.models import EngineModel, LimitsModel, Stats

VERSION = importlib.metadata.version("sandcell")


class StatsService:
    """Counts what a `SessionService` keeps; its making is the gateway's start."""

    def __init__(self, sessions: SessionService, settings: GatewaySettings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._started_at = now()

    async def stats(self, principal: Principal) -> Stats:
        """As it is now. The first time, it finds out which engine works."""
        engine, problem, soft = None, None, frozenset[str]()
        try:
            chosen = await self._sessions.engine.get()
            engine, soft = EngineModel(name=chosen.name, isolated=chosen.isolated), chosen.soft
        except EngineUnavailable as error:
            problem = error.detail
        most = await asyncio.to_thread(limits.allowed, self._settings)
        return Stats(
            sessions=await self._sessions.count(principal),
            engine=engine,
            engine_problem=problem,
            limits=LimitsModel(**most, soft=sorted(name for name in soft if most[name])),
            versions={"sandcell": VERSION, "python": platform.python_version()},
            started_at=self._started_at,
        )
