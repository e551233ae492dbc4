"""Blocking calls from asyncio, and several things at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import BinaryIO, ParamSpec, TypeVar

PIECE = 1 << 20

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")


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


async def fan_out(
    tasks: Sequence[A],
    workers: int,
    work: Callable[[Iterator[tuple[int, A]], Callable[[int, T], None]], Awaitable[None]],
) -> AsyncGenerator[tuple[int, T]]:
    """Have so many workers share numbered tasks; what they give, as it comes.

    The first that fails ends the others. Who leaves early ends them all.
    """
    coming: asyncio.Queue[tuple[int, T] | None] = asyncio.Queue()
    shared = iter(enumerate(tasks))

    def give(number: int, result: T) -> None:
        coming.put_nowait((number, result))

    async def worker() -> None:
        try:
            await work(shared, give)
        finally:
            coming.put_nowait(None)

    running = [asyncio.create_task(worker()) for _ in range(workers)]
    try:
        left = workers
        while left:
            found = await coming.get()
            if found is not None:
                yield found
                continue
            left -= 1
            for task in running:
                if task.done():
                    task.result()
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
