"""The whole path with a faulty line in it: local kernel, proxy, gateway on TCP, shim, sandbox."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import sandcell
from sandcell_wire.frames import SUBPROTOCOL, decode
from sandcell_wire.messages import Message as WireMessage
from sandcell_wire.messages import parse_object
from tests.support import gateways
from tests.support.home import Home
from tests.support.kernels import TIMEOUT, FrontEnd, Kernel, Message, Result, kernel
from tests.support.ledger import Cell, Ledger, Seen
from tests.support.proxy import Proxy

LEAVING = "sandcell_kernel.leaving"
TOKEN = "a-token-for-tests-only"


@dataclass
class Route:
    """A gateway as a program of its own, the proxy before it, and who uses them."""

    home: Home
    proxy: Proxy
    process: subprocess.Popen[str] | None = None

    # -- the gateway -------------------------------------------------------------------------

    def start_gateway(self) -> None:
        """Run it, and let the proxy lead there."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sandcell", "gateway", "--port", "0"],
            env=self.home.environ | {"SANDCELL_TOKEN": TOKEN},
            cwd=self.home.path,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert found is not None, "the gateway did not start"
        self.proxy.target = ("127.0.0.1", int(found[1]))

    def end_gateway(self, number: signal.Signals) -> None:
        """Signal it, and wait for its end."""
        assert self.process is not None
        self.proxy.target = None
        self.process.send_signal(number)
        self.process.wait(TIMEOUT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    @property
    def gateway_pid(self) -> int:
        """The gateway's."""
        assert self.process is not None
        return self.process.pid

    @property
    def connections(self) -> int:
        """How many TCP connections the gateway holds open."""
        found = psutil.Process(self.gateway_pid).net_connections("tcp")
        return sum(connection.status == psutil.CONN_ESTABLISHED for connection in found)

    @contextmanager
    def client(self) -> Iterator[sandcell.Client]:
        """A client that goes past the proxy, so that it sees what happens in an outage."""
        assert self.proxy.target is not None
        with sandcell.Client("http://{}:{}".format(*self.proxy.target), TOKEN) as client:
            yield client

    def status(self) -> str:
        """The only session's."""
        with self.client() as client:
            (session,) = client.sessions.list()
            return session.status.value

    @property
    def workspace(self) -> Path:
        """The only session's files."""
        (directory,) = gateways.session_directories(self.home)
        return directory / "workspace"

    # -- its users ---------------------------------------------------------------------------

    @property
    def environ(self) -> dict[str, str]:
        """For local kernels behind the proxy."""
        behind = {"SANDCELL_URL": self.proxy.url, "SANDCELL_TOKEN": TOKEN}
        return self.home.environ | behind

    @contextmanager
    def kernel(self, name: str = "kernel", **environ: str) -> Iterator[Kernel]:
        """A local kernel behind the proxy, with files of its own."""
        directory = self.home.path / name
        directory.mkdir(exist_ok=True)
        with kernel("sandcell", self.environ | environ, directory) as started:
            yield started

    def close_sessions(self) -> None:
        """End what is left of the test."""
        if self.process is None:
            self.start_gateway()
        # A kernel's goodbye may be cut, or late: then another process says it again.
        gateways.eventually("kernels leave", lambda: not gateways.processes(self.home, LEAVING))
        with self.client() as client:
            for session in client.sessions.list():
                session.close()


@contextmanager
def open_route(home: Home) -> Generator[Route]:
    """A running gateway and a proxy; at the end no session is left."""
    with Proxy() as proxy:
        route = Route(home, proxy)
        try:
            route.start_gateway()
            yield route
        finally:
            route.close_sessions()
            route.end_gateway(signal.SIGTERM)


def wait_for_output(front: FrontEnd, msg_id: str, text: str) -> None:
    """Read the cell's output until it has said `text`."""
    while True:
        message: Message = front.client.get_iopub_msg(timeout=TIMEOUT)
        ours = message["parent_header"].get("msg_id") == msg_id
        if ours and text in message["content"].get("text", ""):
            return


def account(
    front: FrontEnd, cell: Cell, seen: Seen, *, timeout: float = TIMEOUT
) -> tuple[Ledger, Result]:
    """Run a cell of the ledger, and account for what the front end was shown."""
    result = front.run(cell.code, seen=seen.take, timeout=timeout)
    return seen.ledger(cell.expected), result


def replayed(route: Route, msg_id: str) -> list[Message]:
    """What the journal has of a cell's output, read by a client that attaches after its end."""
    with route.client() as client:
        (session,) = client.sessions.list()
        assert route.proxy.target is not None
        url = "ws://{}:{}".format(*route.proxy.target)
    path = f"/v1/sessions/{session.id}/channels?client=reader&after=0"
    found: list[Message] = []
    with connect(
        url + path,
        additional_headers={"Authorization": f"Bearer {TOKEN}"},
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        max_size=None,
    ) as socket:
        while not (found and found[-1]["content"].get("execution_state") == "idle"):
            data = socket.recv(timeout=TIMEOUT)
            if isinstance(data, bytes):
                message = decode(data)[1]
                if message.channel == "iopub" and msg_id in str(message.parent_header):
                    found.append(_as_front_ends_see(message))
    return found


def _as_front_ends_see(message: WireMessage) -> Message:
    return {
        "header": parse_object(message.header, "header"),
        "parent_header": parse_object(message.parent_header, "parent_header"),
        "content": message.content_dict(),
        "buffers": message.buffers,
    }
