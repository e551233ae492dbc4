"""ipykernel as our launcher starts it, in a sandbox, over sockets reached as the shim does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from sandcell_gateway.engines.agent_client import ProcessExited
from tests.engines.places import Running

KEY = "key"
SECONDS = 60
"""Patience for one message."""
STALL = 2.0
"""How long a reader does not read."""
SHELL, IOPUB = 1, 2
MARK = 100
"""High-water mark of the stalled reader."""


async def launch(running: Running, *arguments: str, **changes: object) -> int:
    """Start a kernel and wait until it says that it serves."""
    inside = running.sandbox.inside
    names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
    connection = {
        "transport": "ipc",
        "ip": f"{inside.sockets}/k",
        "key": KEY,
        "signature_scheme": "hmac-sha256",
        **{name: number for number, name in enumerate(names, 1)},
        **changes,
    }
    environ = {**running.sandbox.environ, "SANDCELL_CONNECTION": json.dumps(connection)}
    argv = [inside.python, f"{inside.programs}/kernel_launcher.py", *arguments]
    pid = await running.agent.spawn(argv, environ, inside.workspace, ready=True)
    await running.agent.wait_ready(pid)
    return pid


class Front:
    """A client with one shell and one iopub socket."""

    def __init__(self, shell: Any, iopub: Any) -> None:
        self.session = Session(key=KEY.encode())
        self.shell = shell
        self.iopub = iopub

    def ask(self, msg_type: str, **content: object) -> None:
        """Send on shell."""
        self.session.send(self.shell, msg_type, content)

    def receive(self, socket: Any) -> dict[str, Any]:
        """The next message."""
        assert socket.poll(SECONDS * 1000), "no message came"
        _, message = self.session.recv(socket, zmq.NOBLOCK)
        assert message is not None
        return message

    def displays_until_idle(self) -> list[dict[str, Any]]:
        """What was displayed and printed until the kernel is idle again."""
        found: list[dict[str, Any]] = []
        while True:
            message = self.receive(self.iopub)
            if message["msg_type"] in ("display_data", "stream"):
                found.append(message)
            if message["content"].get("execution_state") == "idle":
                return found


@contextmanager
def connected(running: Running) -> Iterator[Front]:
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())

        def connect(kind: int, number: int) -> Any:
            address, release = running.sandbox.connect_address(f"k-{number}")
            stack.callback(release)
            socket = stack.enter_context(context.socket(kind))
            socket.linger = 0
            socket.rcvhwm = MARK
            if kind == zmq.SUB:
                socket.subscribe(b"")
            socket.connect(address)
            return socket

        front = Front(connect(zmq.DEALER, SHELL), connect(zmq.SUB, IOPUB))
        # The kernel's own status may overtake the welcome, which another thread sends.
        while front.receive(front.iopub)["msg_type"] != "iopub_welcome":
            pass
        yield front


async def run(front: Front, code: str) -> str:
    """Execute and return what was printed."""
    front.ask("execute_request", code=code, silent=False)
    found = await asyncio.to_thread(front.displays_until_idle)
    return "".join(message["content"].get("text", "") for message in found)


async def test_a_ready_kernel_answers(running: Running) -> None:
    await launch(running, "--Session.session=chosen")
    with connected(running) as front:
        front.ask("kernel_info_request")
        reply = await asyncio.to_thread(front.receive, front.shell)
        assert reply["content"]["language_info"]["name"] == "python"
        assert reply["header"]["session"] == "chosen"


async def test_a_second_reader_is_welcomed_while_the_first_is_there(running: Running) -> None:
    await launch(running)
    with connected(running), connected(running) as second:
        assert await run(second, "print('heard')") == "heard\n"


async def test_cells_see_nothing_of_how_it_was_started(running: Running) -> None:
    await launch(running)
    (running.spec.workspace / "mine.py").write_text("here = 1")
    with connected(running) as front:
        code = (
            "import os, sys, mine\n"
            "print([n for n in os.environ if 'READY' in n or 'CONNECTION' in n or 'JPY' in n])\n"
            "print('agent' in sys.modules, any('sandcell' in place for place in sys.path[:2]))"
        )
        assert await run(front, code) == "[]\nFalse False\n"


async def test_a_reader_that_stalls_loses_nothing(running: Running) -> None:
    await launch(running)
    with connected(running) as front:
        code = "for n in range(8000): display({'text/plain': f'{n} ' + 'x' * 2000}, raw=True)"
        front.ask("execute_request", code=code, silent=False)
        await asyncio.to_thread(front.shell.poll, STALL * 1000)
        found = await asyncio.to_thread(front.displays_until_idle)
        numbers = [int(message["content"]["data"]["text/plain"].split()[0]) for message in found]
        assert numbers == list(range(8000))


async def test_a_sandbox_line_below_code_is_a_usage_error(running: Running) -> None:
    await launch(running)
    with connected(running) as front:
        assert "at the top of its cell" in await run(front, "x = 1\n%sandbox status")


async def test_a_bad_connection_says_why(running: Running) -> None:
    with pytest.raises(ProcessExited, match="exited with code 1"):
        await launch(running, ip="/no/such/directory/k")
    async with asyncio.timeout(SECONDS):
        while "No such file" not in running.log() and "ZMQError" not in running.log():
            await running.agent.processes()
