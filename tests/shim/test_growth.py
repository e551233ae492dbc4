"""Who waits for a journal to grow is told when it has, and not before."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind
from sandcell_gateway.shim.executions import Execution, Executions
from sandcell_gateway.shim.growth import Growth
from tests.journal.samples import message


def ran(executions: Executions, seq: int) -> None:
    """An execution whose reply has this number."""
    executions.asked(Execution(f"e{seq}", "c", seq - 1, 1.0))
    executions.ended(f"e{seq}", 2.0, seq, "ok", 1)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_executions_count_from_a_number_on(tmp_path: Path) -> None:
    executions = Executions()
    with Journal(tmp_path, background=False) as journal:
        growth = Growth(journal, lambda: executions)
        for seq in (10, 20):
            ran(executions, seq)
        await growth.until(after=0, executions=2, count=0)
        waiting = asyncio.create_task(growth.until(after=10, executions=3, count=0))
        for seq in (30, 40):
            await settle()
            assert not waiting.done()
            ran(executions, seq)
            growth.ended()
        await settle()
        assert waiting.done()
        await waiting


async def test_bytes_count_from_now_on(tmp_path: Path) -> None:
    with Journal(tmp_path, background=False) as journal:
        growth = Growth(journal, Executions)

        def record(size: int) -> None:
            journal.append(message(b"x" * size), Kind.KERNEL)
            growth.recorded()

        record(9000)
        few = asyncio.create_task(growth.until(after=0, executions=0, count=5000))
        many = asyncio.create_task(growth.until(after=0, executions=0, count=9000))
        await settle()
        record(4000)
        await settle()
        assert (few.done(), many.done()) == (False, False)
        record(1000)
        await settle()
        assert (few.done(), many.done()) == (True, False)
        record(4000)
        await settle()
        assert many.done()
        await asyncio.gather(few, many)


async def test_nothing_wanted_is_never(tmp_path: Path) -> None:
    with Journal(tmp_path, background=False) as journal:
        growth = Growth(journal, Executions)
        waiting = asyncio.create_task(growth.until(after=0, executions=0, count=0))
        growth.ended()
        await settle()
        assert not waiting.done()
        waiting.cancel()
