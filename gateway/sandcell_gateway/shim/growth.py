"""Tells who waits for it that the journal has grown by so much."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.shim.executions import Executions


class Growth:
    """Counts executions that ended and bytes that were recorded."""

    def __init__(self, journal: Journal, executions: Callable[[], Executions]) -> None:
        self._journal = journal
        self._executions = executions
        self._changed = asyncio.Event()
        self._bytes = sys.maxsize  # of all that was appended: who waits for bytes looks again

    def recorded(self) -> None:
        """A record was appended."""
        if self._journal.appended >= self._bytes:
            self._bytes = sys.maxsize
            self.ended()

    def ended(self) -> None:
        """An execution may have ended."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, after: int, executions: int, count: int) -> None:
        """Wait until so many executions have ended behind record `after`, or `count` bytes
        were appended from now on; 0 of either is never.
        """
        earlier = self._executions().total - self._executions().ended_after(after)
        limit = self._journal.appended + count
        while True:
            if executions and self._executions().total - earlier >= executions:
                return
            if count:
                if self._journal.appended >= limit:
                    return
                self._bytes = min(self._bytes, limit)
            await self._changed.wait()
