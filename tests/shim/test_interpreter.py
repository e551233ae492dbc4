"""Connecting to an interpreter: nothing is asked before all of it would be heard."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import zmq
import zmq.asyncio

from sandcell_gateway.engines.base import Sandbox
from sandcell_gateway.shim.interpreter import Interpreter, InterpreterState
from sandcell_wire.messages import Signer, make

KEY = "0" * 64
PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4}


class Place:
    """Where the sockets are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def connect_address(self, name: str) -> tuple[str, Callable[[], None]]:
        return f"ipc://{self.directory / name}", lambda: None


@pytest.fixture
def place(run_directory: Path) -> Place:
    return Place(Path(tempfile.mkdtemp(prefix="", dir=run_directory)))


async def welcome(iopub: zmq.asyncio.Socket) -> None:
    """What ipykernel says to who subscribes."""
    await iopub.recv()
    message = make("iopub", "iopub_welcome", {}, session="s")
    await iopub.send_multipart(Signer(KEY.encode()).pack(message))


async def test_it_is_not_connected_before_its_questions_would_come(place: Place) -> None:
    """A ROUTER drops what is for somebody who has not finished shaking hands."""
    context = zmq.asyncio.Context()
    state = InterpreterState("i", "k", KEY, "us", 1)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place.directory / "k-3"))
    listener.listen()  # and says nothing
    others: list[Any] = []
    for channel in ("shell", "iopub", "control"):
        others.append(context.socket(zmq.XPUB if channel == "iopub" else zmq.ROUTER))
        others[-1].bind(f"ipc://{place.directory}/k-{PORTS[channel]}")
    welcoming = asyncio.create_task(welcome(others[1]))
    attaching = asyncio.create_task(
        Interpreter.attach(state, cast("Sandbox", place), lambda message: None, print)
    )
    await welcoming
    done, _ = await asyncio.wait([attaching], timeout=0.5)
    assert not done
    attaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attaching
    listener.close()
    for each in others:
        each.close(0)
    context.term()


async def test_it_is_connected_when_all_know_it(place: Place) -> None:
    context = zmq.asyncio.Context()
    state = InterpreterState("i", "k", KEY, "us", 1)
    sockets: dict[str, Any] = {}
    for channel, port in PORTS.items():
        sockets[channel] = context.socket(zmq.XPUB if channel == "iopub" else zmq.ROUTER)
        sockets[channel].bind(f"ipc://{place.directory}/k-{port}")
    welcoming = asyncio.create_task(welcome(sockets["iopub"]))
    heard: asyncio.Queue[Any] = asyncio.Queue()
    async with asyncio.timeout(30):
        interpreter = await Interpreter.attach(
            state, cast("Sandbox", place), heard.put_nowait, print
        )
        await welcoming
        question = Signer(KEY.encode()).pack(make("stdin", "input_request", {}, session="s"))
        sockets["stdin"].setsockopt(zmq.ROUTER_MANDATORY, 1)  # an error if nobody is there
        await sockets["stdin"].send_multipart([b"us", *question])
        assert (await heard.get()).channel == "stdin"
    interpreter.close()
    for each in sockets.values():
        each.close(0)
    context.term()
