"""The agent's line protocol, with garbage; and its client, with a hostile agent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandcell_gateway.engines.agent_client import AgentClient
from sandcell_gateway.engines.base import EngineError, Exit, SandboxGone
from sandcell_gateway.engines.local import agent_program
from sandcell_gateway.inside import agent_requests as inside
from sandcell_gateway.inside.agent import MAX_CONNECTIONS

calm = settings(deadline=None, database=None)
"""No test depends on speed, and a checkout may be read-only."""

# -- the agent -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agent(run_directory: Path) -> Iterator[Path]:
    """A real agent outside any sandbox; its socket."""
    path = run_directory / "agent.sock"
    ours, theirs = socket.socketpair()
    config = json.dumps({"socket": str(path), "start_fd": theirs.fileno(), "limits": {}})
    argv = [sys.executable, "-I", "-S", str(agent_program()), config]
    with ours, subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        assert ours.recv(1) == b"r"
        ours.sendall(b"g")
        yield path
        assert process.poll() is None, "the agent died"
        process.kill()


def talk(path: Path, data: bytes, answers: int) -> list[Any]:
    """Send bytes on a new connection; that many lines of what comes back."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(data)
        with sock.makefile("rb") as lines:
            return [json.loads(line) for _ in range(answers) if (line := lines.readline())]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
OPERATIONS = ["spawn", "signal", "list", "reap", "read", "write", "nonsense"]
requests = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["spawn", "signal", "list", "reap", "read", "write", "nonsense"])
        | json_values
    },
    optional={
        "id": json_values,
        "pid": json_values,
        "signal": json_values,
        # No program is found in a directory that is not there, whatever is asked for.
        "cwd": st.just("/nonexistent") | st.integers(),
        "argv": json_values,
        "env": json_values,
        "ready": json_values,
        "streams": json_values,
        "input": json_values,
        "stream": json_values,
        "at": json_values,
        "data": json_values,
    },
)
lines = st.binary(max_size=200).map(lambda data: data.replace(b"\n", b"")) | requests.map(
    lambda request: json.dumps({"cwd": "/nonexistent", **request}).encode()
)


@calm
@given(garbage=st.lists(lines, max_size=8))
def test_every_line_gets_one_answer_and_the_agent_lives(agent: Path, garbage: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in [*garbage, b'{"id": "last", "op": "list"}'])
    answers = talk(agent, data, len(garbage) + 1)
    assert len(answers) == len(garbage) + 1
    assert all(isinstance(answer["ok"], bool) for answer in answers)
    assert all(isinstance(answer["error"], str) for answer in answers if not answer["ok"])
    assert answers[-1] == {"id": "last", "ok": True, "processes": []}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"op": "nonsense"}, "unknown op"),
        ({"op": 3}, "unknown op"),
        ({"op": "spawn"}, "argv must be"),
        ({"op": "spawn", "argv": []}, "argv must be"),
        ({"op": "spawn", "argv": ["true"], "env": {"A": 1}}, "env must map"),
        ({"op": "spawn", "argv": ["true"], "cwd": 1}, "cwd must be"),
        ({"op": "spawn", "argv": ["tr\0ue"]}, "embedded null"),
        ({"op": "spawn", "argv": ["true"], "env": {"A=": "\0"}}, "cannot run"),
        ({"op": "signal", "pid": 1, "signal": 9}, "no process 1"),
        ({"op": "signal", "pid": True, "signal": 9}, "pid must be an integer"),
        ({"op": "reap", "pid": -1}, "no process -1"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    agent: Path, request_: dict[str, Any], error: str
) -> None:
    (answer,) = talk(agent, json.dumps({"id": 7, **request_}).encode() + b"\n", 1)
    assert answer["id"] == 7
    assert answer["ok"] is False
    assert error in answer["error"]


def _pour(sock: socket.socket, data: bytes) -> None:
    while True:
        sock.sendall(data)


def test_a_line_without_end_is_cut_off(agent: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(agent))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _pour(sock, b"x" * 65536)
    assert talk(agent, b'{"op": "list"}\n', 1)[0]["ok"]


def test_a_reader_that_does_not_read_is_dropped(agent: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(agent))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _pour(sock, b'{"op": "list", "id": "' + b"x" * 60000 + b'"}\n')
    assert talk(agent, b'{"op": "list"}\n', 1)[0]["ok"]


def test_connections_are_few(agent: Path) -> None:
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2 * MAX_CONNECTIONS)
        ]
        for sock in held:
            sock.settimeout(30)
            sock.connect(str(agent))
        assert held[-1].recv(1) == b""
        held[0].sendall(b'{"op": "list"}\n')
        assert b"processes" in held[0].recv(1000)


@calm
@given(data=st.binary(max_size=500), cuts=st.lists(st.integers(0, 500), max_size=10))
def test_lines_do_not_depend_on_how_bytes_arrive(data: bytes, cuts: list[int]) -> None:
    whole, split = inside.Lines(), inside.Lines()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert [line for piece in pieces for line in split.feed(piece)] == whole.feed(data)
    assert data.count(b"\n") == len(inside.Lines().feed(data))


def test_a_line_that_is_too_long_is_refused_in_any_pieces() -> None:
    for pieces in ([b"x" * (inside.MAX_LINE + 1)], [b"x" * inside.MAX_LINE, b"x\n"]):
        taken = inside.Lines()
        assert [taken.feed(piece) for piece in pieces[:-1]] == [[]] * (len(pieces) - 1)
        with pytest.raises(inside.RequestError, match="bytes"):
            taken.feed(pieces[-1])


def test_an_agent_without_leave_ends(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    config = json.dumps({"socket": str(tmp_path / "s"), "start_fd": theirs.fileno()})
    argv = [sys.executable, "-I", "-S", str(agent_program()), config]
    with subprocess.Popen(
        argv, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True
    ) as process:
        theirs.close()
        assert ours.recv(1) == b"r"
        ours.close()
        assert "died before it was complete" in process.communicate(timeout=30)[1]
        assert process.returncode == 1


# -- its client ----------------------------------------------------------------------------


class Hostile:
    """A sandbox whose agent says what a test wants."""

    def __init__(self, answer: Callable[[dict[str, Any]], bytes]) -> None:
        self._answer = answer
        self._served: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()

    async def connect_agent(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        self._served.append(asyncio.create_task(self._serve(theirs)))
        return await asyncio.open_unix_connection(sock=ours, limit=1 << 20)

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            while line := await reader.readline():
                writer.write(self._answer(json.loads(line)))
        finally:
            writer.close()
            self._ended.set()

    async def wait(self) -> Exit:
        await self._ended.wait()
        return Exit(None, 9)

    async def kill(self) -> Exit:
        for task in self._served:
            task.cancel()
        return Exit(None, 9)

    async def aclose(self) -> None:
        await self.kill()
        await asyncio.gather(*self._served, return_exceptions=True)


def _line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _listing(request: dict[str, Any]) -> bytes:
    return _line(id=request["id"], ok=True, processes=[])


@calm
@given(garbage=st.lists(lines.filter(lambda line: b'"id"' not in line), max_size=6))
def test_garbage_of_a_hostile_agent_is_passed_over(garbage: list[bytes]) -> None:
    async def scenario() -> None:
        noise = b"".join(line + b"\n" for line in garbage)
        sandbox = Hostile(lambda request: noise + _listing(request) + noise)
        async with await AgentClient.open(sandbox) as client:
            assert await client.processes() == []
        await sandbox.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("processes", [None, "text", {}, 3])
async def test_no_list_is_an_error(processes: object) -> None:
    sandbox = Hostile(lambda request: _line(id=request["id"], ok=True, processes=processes))
    with pytest.raises(EngineError, match="no list"):
        await AgentClient.open(sandbox)
    await sandbox.aclose()


@pytest.mark.parametrize(
    "processes",
    [
        [None],
        [{"pid": "1"}],
        [{"pid": -5}],
        [{"pid": True}],
        [{"pid": 4, "exit": 3, "running": False}],
    ],
)
async def test_a_list_of_nonsense_does_no_harm(processes: object) -> None:
    sandbox = Hostile(lambda request: _line(id=request["id"], ok=True, processes=processes))
    async with await AgentClient.open(sandbox) as client:
        assert all(state.exit == Exit(None) for state in await client.processes())
    await sandbox.aclose()


async def test_a_line_beyond_the_limit_ends_the_stream() -> None:
    def answer(request: dict[str, Any]) -> bytes:
        return _listing(request) if request["id"] == 1 else b"x" * (3 << 20)

    sandbox = Hostile(answer)
    async with await AgentClient.open(sandbox) as client:
        with pytest.raises(SandboxGone):
            await client.processes()
        assert client.closed.is_set()
    await sandbox.aclose()


async def test_an_event_before_its_answer_is_not_lost() -> None:
    def answer(request: dict[str, Any]) -> bytes:
        if request["op"] == "list":
            return _listing(request)
        exit_ = {"code": 5, "signal": None, "max_rss": 1}
        ready = _line(event="ready", pid=3) + _line(event="exit", pid=3, exit=exit_)
        return ready + _line(id=request["id"], ok=True, pid=3)

    sandbox = Hostile(answer)
    async with await AgentClient.open(sandbox) as client:
        pid = await client.spawn(["x"], {}, "/", ready=True)
        await client.wait_ready(pid)
        assert (await client.wait_exit(pid)).code == 5
    await sandbox.aclose()


async def test_a_request_that_is_too_large_is_refused_here() -> None:
    sandbox = Hostile(_listing)
    async with await AgentClient.open(sandbox) as client:
        with pytest.raises(EngineError, match="at most"):
            await client.spawn(["x" * (1 << 20)], {}, "/")
    await sandbox.aclose()


async def test_an_error_of_the_agent_is_told_and_bounded() -> None:
    def answer(request: dict[str, Any]) -> bytes:
        if request["id"] == 1:
            return _listing(request)
        return _line(id=request["id"], ok=False, error="no " * 5000)

    sandbox = Hostile(answer)
    async with await AgentClient.open(sandbox) as client:
        with pytest.raises(EngineError) as caught:
            await client.reap(3)
        assert len(str(caught.value)) <= 2000
    await sandbox.aclose()
