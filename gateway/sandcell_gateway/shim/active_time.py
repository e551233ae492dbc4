"""Time in which a session is not paused: limits on cells and commands count only that."""

from __future__ import annotations

import asyncio


class ActiveTime:
    """Runs from the start; `stop` and `go` are called from the loop."""

    def __init__(self) -> None:
        self._goes, self._stands = asyncio.Event(), asyncio.Event()
        self._goes.set()

    def stop(self) -> None:
        """The session is paused."""
        self._goes.clear()
        self._stands.set()

    def go(self) -> None:
        """It goes on."""
        self._stands.clear()
        self._goes.set()

    async def sleep(self, seconds: float) -> None:
        """Until so many seconds went by."""
        clock, left = asyncio.get_running_loop().time, seconds
        while True:
            await self._goes.wait()
            begun = clock()
            try:
                async with asyncio.timeout(max(left, 0.0)):
                    await self._stands.wait()
            except TimeoutError:
                return
            left -= clock() - begun
