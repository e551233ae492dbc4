"""Time limits stand still while a session is paused."""

from __future__ import annotations

import asyncio

from sandcell_gateway.shim.active_time import ActiveTime


async def test_it_does_not_count_while_it_stands() -> None:
    time, loop = ActiveTime(), asyncio.get_running_loop()
    time.stop()
    sleeping = asyncio.create_task(time.sleep(0.01))
    await asyncio.sleep(0.1)
    assert not sleeping.done()
    begun = loop.time()
    time.go()
    await sleeping
    assert loop.time() - begun >= 0.01


async def test_what_went_by_before_it_was_stopped_counts() -> None:
    """An hour, of which all but a moment has gone by: with a clock that is moved by hand."""
    time, loop = ActiveTime(), asyncio.get_running_loop()
    real, skipped = loop.time, 0.0
    loop.time = lambda: real() + skipped  # type: ignore[method-assign]
    sleeping = asyncio.create_task(time.sleep(3600))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    skipped = 3599.9
    time.stop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not sleeping.done()
    time.go()
    async with asyncio.timeout(60):
        await sleeping


async def test_nothing_left_is_over_at_once() -> None:
    async with asyncio.timeout(60):
        await ActiveTime().sleep(0)
        await ActiveTime().sleep(-5)
