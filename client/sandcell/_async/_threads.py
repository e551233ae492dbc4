"""Blocking calls from asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import BinaryIO, ParamSpec, TypeVar

PIECE = 1 << 20

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it without holding up the event loop."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def pieces(file: BinaryIO) -> AsyncGenerator[bytes]:
    """What is in a file, at most `PIECE` bytes at once."""
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


async def pause(seconds: float) -> None:
    """Wait so long."""
    await asyncio.sleep(seconds)
