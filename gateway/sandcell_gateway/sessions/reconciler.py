"""All live sessions' keepers: one task each, from the first request to the last step."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog

from sandcell_gateway.clock import now
from sandcell_gateway.paths import SESSIONS, SOCKETS
from sandcell_gateway.sessions.keeper import Keeper
from sandcell_gateway.sessions.places import Places
from sandcell_gateway.settings import GatewaySettings
from sandcell_gateway.store.sessions import SessionStore
from sandcell_gateway.store.tables import SessionRow

PRUNE_EVERY = 3600.0
"""Seconds between two removals of old closed sessions from the store."""

Beside = Callable[[Keeper], Coroutine[Any, Any, None]]
"""What is done for a session as long as it is kept; must fail for nothing."""

_log = structlog.get_logger(__name__)


class Reconciler:
    """Owns the keepers. Make it with `open_reconciler`."""

    def __init__(
        self,
        store: SessionStore,
        settings: GatewaySettings,
        group: asyncio.TaskGroup,
        beside: Beside,
    ) -> None:
        self._store = store
        self._settings = settings
        self._group = group
        self._beside = beside
        self._keepers: dict[str, Keeper] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, session_id: str) -> Keeper | None:
        """The keeper of a live session."""
        return self._keepers.get(session_id)

    @property
    def keepers(self) -> Mapping[str, Keeper]:
        """Those of all sessions that live now, by id."""
        return dict(self._keepers)

    @property
    def live(self) -> int:
        """How many sessions are not final."""
        return len(self._keepers)

    def keep(self, row: SessionRow, *, recovered: bool = False) -> Keeper:
        """Begin to keep a session."""
        places = Places.of(self._settings, row.id)
        keeper = Keeper(
            row,
            self._store,
            places,
            recovered=recovered,
            orphan_timeout=self._settings.orphan_timeout,
        )
        self._keepers[row.id] = keeper
        self.start(self._run(keeper))
        return keeper

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something until it ends or the gateway stops."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """End all work here. What it started outside runs on."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, keeper: Keeper) -> None:
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(self._beside(keeper))
            try:
                await keeper.run()
            finally:
                self._keepers.pop(keeper.row.id, None)
                beside.cancel()

    async def recover(self) -> None:
        """Keep every session that an earlier gateway left, and remove what none claims."""
        rows = await self._store.live()
        for row in rows:
            self.keep(row, recovered=True)
        known = {row.id for row in rows}
        await asyncio.to_thread(_remove_strays, self._settings, known)
        if rows:
            _log.info("sessions found", count=len(rows))

    async def prune_for_ever(self) -> None:
        """Forget closed sessions after `keep_closed` seconds."""
        while True:
            try:
                await self._store.prune(now() - timedelta(seconds=self._settings.keep_closed))
            except Exception as error:
                _log.error("pruning failed", exc_info=error)
            await asyncio.sleep(PRUNE_EVERY)


def _remove_strays(settings: GatewaySettings, known: set[str]) -> None:
    claimed = {Places.of(settings, session_id) for session_id in known}
    states = {places.state.name for places in claimed}
    runtimes = {places.runtime.name for places in claimed}
    for parent, names in (
        (settings.state_dir / SESSIONS, states),
        (settings.runtime_dir / SOCKETS, runtimes),
    ):
        for path in parent.iterdir():
            if path.name not in names:
                _log.warning("removing what no session claims", path=str(path))
                shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def open_reconciler(
    store: SessionStore, settings: GatewaySettings, beside: Beside
) -> AsyncGenerator[Reconciler]:
    """Keepers for all live sessions. On leaving they stop, and the shims run on."""
    async with asyncio.TaskGroup() as group:
        reconciler = Reconciler(store, settings, group, beside)
        await reconciler.recover()
        reconciler.start(reconciler.prune_for_ever())
        try:
            yield reconciler
        finally:
            reconciler.stop()
