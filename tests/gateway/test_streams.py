"""A stream that is given up leaves nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.types import Message

from sandcell_gateway.access.leases import Lease
from sandcell_gateway.errors import TokenEnded
from sandcell_gateway.routes.streams import stream
from tests.gateway.support import PATIENCE

SCOPE: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}
TURNS = 5
"""Turns of the loop that the source takes to end: a connection is closed, for example."""


class Source:
    """Events, of which there is one."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.has_ended = False

    async def events(self) -> AsyncGenerator[int]:
        yield 1
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            self.has_ended = True


async def ignore(message: Message) -> None:
    """Nobody reads it."""


@pytest.mark.parametrize("how", ["the client hangs up", "the token ends"])
async def test_the_source_is_closed(how: str) -> None:
    source, lease, hang_up = Source(), Lease(None), asyncio.Event()
    request: Any = SimpleNamespace(state=SimpleNamespace(request_id="r"))
    response = stream(request, source.events(), TypeAdapter(int))

    async def receive() -> Message:
        await hang_up.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        async with lease.held(armed=True):
            await response(SCOPE, receive, ignore)

    async with asyncio.timeout(PATIENCE):
        task = asyncio.create_task(run())
        await source.begun.wait()
        if how == "the client hangs up":
            hang_up.set()
            await task
        else:
            lease.revoke()
            with pytest.raises(TokenEnded):
                await task
    assert source.has_ended
