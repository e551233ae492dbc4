"""The steps of a session's life, one after the other, so that they never interleave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from sandcell_gateway.engines.base import EngineError
from sandcell_wire.states import IllegalTransition

Step = Callable[[], Awaitable[None]]


class Steps:
    """A queue and its worker, which is `run`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Step] = asyncio.Queue()

    async def run(self) -> NoReturn:
        """Until cancelled."""
        while True:
            step = await self._queue.get()
            await step()

    def soon(self, step: Step) -> None:
        """Do it when it is its turn."""
        self._queue.put_nowait(step)

    async def do(self, step: Step) -> None:
        """The same, and wait for it. Raises `IllegalTransition` or `EngineError` if it does."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def told() -> None:
            try:
                await step()
            except (IllegalTransition, EngineError) as error:
                if not done.done():
                    done.set_exception(error)
            finally:
                if not done.done():
                    done.set_result(None)

        self.soon(told)
        await done
