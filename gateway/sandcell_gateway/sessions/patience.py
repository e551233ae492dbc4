"""Waiting for a session's supervisor that is being replaced, but not for ever."""

from __future__ import annotations

import asyncio

from sandcell_gateway.errors import ShimLost

AWAY = 60.0
"""Seconds in which a supervisor that was lost must be back."""
RETRY = 0.2
"""Seconds between two looks whether it is."""


class Patience:
    """Of one request."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._since: float | None = None

    def back(self) -> None:
        """It is there."""
        self._since = None

    async def away(self, error: ShimLost) -> None:
        """It is not there: wait a moment. Raises `error` when it was away too long."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since > AWAY:
            raise error
        await asyncio.sleep(RETRY)
