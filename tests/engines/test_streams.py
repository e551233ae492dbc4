"""Standard streams of processes in a sandbox, with every engine."""

from __future__ import annotations

import asyncio
import signal

import pytest

from sandcell_gateway.engines.agent_client import AgentClient
from sandcell_gateway.engines.base import EngineError
from tests.engines.places import Running


async def _all(agent: AgentClient, pid: int, stream: str) -> bytes:
    data = b""
    while not (piece := await agent.read(pid, stream, len(data), wait=True)).ended:
        data += piece.data
    return data


async def test_streams_are_fetched_apart_and_input_is_given(running: Running) -> None:
    agent, inside = running.agent, running.sandbox.inside
    script = "read line; echo got $line; echo err >&2; cat"
    argv = ["/bin/sh", "-c", script]
    pid = await agent.spawn(argv, {}, inside.workspace, streams=True, input=True, name="mine")
    assert [state.name for state in await agent.processes() if state.pid == pid] == ["mine"]
    assert await agent.write(pid, 0, b"on") == (2, True)
    # What was had before is not given twice.
    assert await agent.write(pid, 0, b"one\nrest") == (8, True)
    with pytest.raises(EngineError, match="leaves out"):
        await agent.write(pid, 99, b"x")
    assert await agent.write(pid, 8, b"", end=True) == (8, False)
    assert await _all(agent, pid, "stdout") == b"got one\nrest"
    assert await _all(agent, pid, "stderr") == b"err\n"
    assert (await agent.wait_exit(pid)).code == 0
    await agent.reap(pid)


async def test_what_a_dead_reader_had_not_kept_is_given_again(running: Running) -> None:
    """Exactly what it was given last: the next reader says how far it is."""
    agent = running.agent
    program = "import sys; sys.stdout.write('x' * 3_000_000); sys.stdout.write('end')"
    argv = [running.sandbox.inside.python, "-c", program]
    pid = await agent.spawn(argv, dict(running.sandbox.environ), "/", streams=True)
    first = await agent.read(pid, "stdout", 0, wait=True)
    waiting = asyncio.ensure_future(agent.read(pid, "stdout", len(first.data), wait=True))
    await asyncio.sleep(0)
    waiting.cancel()
    async with await AgentClient.open(running.sandbox) as other:
        again = await other.read(pid, "stdout", len(first.data), wait=True)
        repeated = await other.read(pid, "stdout", len(first.data), wait=True)
        assert again == repeated
        with pytest.raises(EngineError, match="at: 0"):
            await other.read(pid, "stdout", 0, wait=True)
        data = first.data + again.data
        while not (piece := await other.read(pid, "stdout", len(data), wait=True)).ended:
            data += piece.data
    assert data == b"x" * 3_000_000 + b"end"


async def test_a_process_whose_output_nobody_fetches_waits_and_holds_nobody(
    running: Running,
) -> None:
    argv = ["/bin/sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxx; done"]
    pid = await running.agent.spawn(argv, {}, "/", streams=True)
    assert (await running.run("print('lives')")).output == "lives\n"
    await running.agent.signal(pid, signal.SIGKILL)
    assert (await running.agent.wait_exit(pid)).signal == signal.SIGKILL


async def test_what_an_ended_process_left_running_does_not_wait_for_a_reader(
    running: Running,
) -> None:
    script = "(head -c 1000000 /dev/zero; touch left) & exit 0"
    inside = running.sandbox.inside
    argv = ["/bin/sh", "-c", script]
    pid = await running.agent.spawn(
        argv, dict(running.sandbox.environ), inside.workspace, streams=True
    )
    await running.agent.wait_exit(pid)
    await running.agent.reap(pid)
    async with asyncio.timeout(20):
        while not (running.spec.workspace / "left").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
