"""Several workers share tasks: with asyncio, and with threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing

import pytest

from sandcell._async import _threads as for_asyncio
from sandcell._sync import _threads as for_threads

Give = Callable[[int, int], None]


async def test_asyncio_workers_work_at_once_and_give_all() -> None:
    meet = asyncio.Barrier(3)

    async def work(tasks: Iterator[tuple[int, int]], give: Give) -> None:
        await meet.wait()
        for number, task in tasks:
            await asyncio.sleep(0)
            give(number, task * 10)

    async with aclosing(for_asyncio.fan_out(range(20), 3, work)) as found:
        assert sorted([one async for one in found]) == [(n, n * 10) for n in range(20)]


def test_threads_work_at_once_and_give_all() -> None:
    meet = threading.Barrier(3, timeout=30)

    def work(tasks: Iterator[tuple[int, int]], give: Give) -> None:
        meet.wait()
        for number, task in tasks:
            give(number, task * 10)

    found = list(for_threads.fan_out(range(20), 3, work))
    assert sorted(found) == [(n, n * 10) for n in range(20)]


async def test_asyncio_the_first_failure_ends_the_others() -> None:
    ended: list[str] = []

    async def work(tasks: Iterator[tuple[int, int]], give: Give) -> None:
        number, _ = next(tasks)
        if number == 1:
            raise LookupError
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    async with aclosing(for_asyncio.fan_out(range(9), 3, work)) as found:
        with pytest.raises(LookupError):
            await anext(found)
    assert ended == ["cleaned up"] * 2


def test_threads_end_early_after_what_they_do() -> None:
    done: list[int] = []

    def work(tasks: Iterator[tuple[int, int]], give: Give) -> None:
        for number, task in tasks:
            if number == 3:
                raise LookupError
            done.append(task)
            give(number, task)

    with pytest.raises(LookupError):
        list(for_threads.fan_out(range(1000), 2, work))
    before = len(done)
    with closing(for_threads.fan_out(range(100_000), 1, work)) as found:
        next(found)
    assert len(done) - before < 100_000


async def test_nothing_to_do() -> None:
    async def work(tasks: Iterator[tuple[int, int]], give: Give) -> None:
        raise AssertionError

    def work_too(tasks: Iterator[tuple[int, int]], give: Give) -> None:
        raise AssertionError

    assert [one async for one in for_asyncio.fan_out([], 0, work)] == []
    assert list(for_threads.fan_out([], 0, work_too)) == []
