"""Which engine this gateway uses, found out once and off the way of requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from sandcell_gateway.engines import registry
from sandcell_gateway.engines.base import EngineError
from sandcell_gateway.errors import EngineUnavailable

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Chosen:
    """The engine of new sessions."""

    name: str
    isolated: bool
    soft: frozenset[str] = frozenset()
    """Limits that this engine does not enforce by itself here (`Sandbox.soft`)."""


class EngineChoice:
    """The setting's engine. A failure is not kept, so what was repaired works at once."""

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._chosen: Chosen | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Chosen:
        """Probe on first use. Raises `EngineUnavailable` with the probe's reason and hint."""
        async with self._lock:
            if self._chosen is None:
                self._chosen = await asyncio.to_thread(self._choose)
                _log.info("engine", name=self._chosen.name, isolated=self._chosen.isolated)
            return self._chosen

    def _choose(self) -> Chosen:
        try:
            engine, probe = registry.choose(self._setting)
        except EngineError as error:
            raise EngineUnavailable(str(error), "run `sandcell doctor`") from error
        if not probe.works:
            raise EngineUnavailable(probe.reason, probe.hint or "run `sandcell doctor`")
        return Chosen(engine.name, engine.isolated, probe.soft)
