"""What answers that never end at once have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

import anyio

HEARTBEAT = 15.0
"""Seconds of silence after which a stream shows that the line stands."""

T = TypeVar("T")


async def with_heartbeat(events: AsyncGenerator[T]) -> AsyncGenerator[T | None]:
    """The same, and None when nothing came for a while."""
    while True:
        coming = asyncio.ensure_future(anext(events, None))
        try:
            while not (await asyncio.wait([coming], timeout=HEARTBEAT))[0]:
                yield None
        finally:
            if not coming.done():
                coming.cancel()
                # Starlette cancels us again at every turn of the loop, but not in here.
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([coming])
        event = coming.result()
        if event is None:
            return
        yield event


async def until_stopping(events: AsyncGenerator[T], stopping: asyncio.Event) -> AsyncGenerator[T]:
    """The same, ended when the gateway stops: it would wait for those who only listen."""
    stop = asyncio.ensure_future(stopping.wait())
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            try:
                await asyncio.wait([coming, stop], return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
                    with anyio.CancelScope(shield=True):
                        await asyncio.wait([coming])
            if coming.cancelled() or (event := coming.result()) is None:
                return
            yield event
    finally:
        stop.cancel()
