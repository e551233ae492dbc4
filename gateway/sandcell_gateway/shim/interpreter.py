"""One interpreter in the sandbox and the shim's sockets to it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

import zmq

from sandcell_gateway.engines.agent_client import AgentClient
from sandcell_gateway.engines.base import Sandbox
from sandcell_wire.messages import BadSignature, Message, MessageError, Signer, dumps
from sandcell_wire.zmq_stream import ZmqStream

START_TIMEOUT = 120.0
"""Seconds for an interpreter to bind its sockets and answer on iopub."""
MAX_MESSAGE_BYTES = 1 << 30
"""Largest message part accepted from a kernel; ZMQ drops the connection above it."""
IOPUB_MARK = 1000
"""Messages queued per direction before the kernel, whose XPUB does not drop, is held back."""

_PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}


@dataclass(frozen=True)
class InterpreterState:
    """What a new shim needs to take an interpreter over: stored beside the sandbox's state."""

    id: str
    """Its messages' `header.session`."""
    name: str
    """Prefix of its socket files."""
    key: str
    """The connection's HMAC key. It lies in the sandbox, so it proves nothing."""
    routing_id: str
    """The identity of our sockets; with another one the running cell's reply would be lost."""
    pid: int
    """In the sandbox's own PID namespace, as the agent counts."""

    def as_json(self) -> dict[str, Any]:
        """For storing; `InterpreterState(**value)` reads it back."""
        return asdict(self)


class Interpreter:
    """A running ipykernel: `send` and the `receive` callback move messages.

    Made by `start` or `attach`; `close` leaves the process running.
    """

    def __init__(
        self,
        state: InterpreterState,
        sandbox: Sandbox,
        receive: Callable[[Message], None],
        drop: Callable[[str], None],
    ) -> None:
        self.state = state
        self._sandbox = sandbox
        self._receive = receive
        self._drop = drop
        self._signer = Signer(state.key.encode())
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._streams: dict[str, ZmqStream] = {}
        self._releases: list[Callable[[], None]] = []
        self._welcomed = asyncio.Event()

    @classmethod
    async def start(
        cls,
        interpreter: str,
        sandbox: Sandbox,
        agent: AgentClient,
        spawned: Callable[[InterpreterState], None],
        receive: Callable[[Message], None],
        drop: Callable[[str], None],
    ) -> Self:
        """Spawn ipykernel through the agent and connect.

        `spawned` gets the state to store as soon as the process exists. Raises
        `ProcessExited`, `EngineError` or `TimeoutError`.
        """
        name, key = f"k{secrets.token_hex(4)}", secrets.token_hex(32)
        inside = sandbox.inside
        connection = {
            "transport": "ipc",
            "ip": f"{inside.sockets}/{name}",
            "key": key,
            "signature_scheme": "hmac-sha256",
            **{f"{channel}_port": port for channel, port in _PORTS.items()},
        }
        argv = [
            inside.python,
            f"{inside.programs}/kernel_launcher.py",
            f"--Session.session={interpreter}",
        ]
        async with asyncio.timeout(START_TIMEOUT):
            environment = {**sandbox.environ, "SANDCELL_CONNECTION": dumps(connection).decode()}
            pid = await agent.spawn(argv, environment, inside.workspace, ready=True)
            state = InterpreterState(interpreter, name, key, secrets.token_hex(8), pid)
            spawned(state)
            await agent.wait_ready(pid)
            return await cls._connected(state, sandbox, receive, drop)

    @classmethod
    async def attach(
        cls,
        state: InterpreterState,
        sandbox: Sandbox,
        receive: Callable[[Message], None],
        drop: Callable[[str], None],
    ) -> Self:
        """Connect to one that an earlier shim started. Raises `EngineError`, `TimeoutError`."""
        async with asyncio.timeout(START_TIMEOUT):
            return await cls._connected(state, sandbox, receive, drop)

    @classmethod
    async def _connected(
        cls,
        state: InterpreterState,
        sandbox: Sandbox,
        receive: Callable[[Message], None],
        drop: Callable[[str], None],
    ) -> Self:
        self = cls(state, sandbox, receive, drop)
        try:
            self._connect("iopub", zmq.SUB)
            # Nothing may be asked before the subscription stands: its answers would be lost.
            await self._welcomed.wait()
            for channel in ("shell", "control"):
                self._connect(channel, zmq.DEALER)
            await self._connect_stdin()
        except BaseException:
            self.close()
            raise
        return self

    async def _connect_stdin(self) -> None:
        """Until the other end knows us: a question to somebody unknown is dropped without a word.

        A cell that is sent on the shell afterwards comes later.
        """
        known = asyncio.Event()
        socket = self._socket("stdin", zmq.DEALER)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        watching = ZmqStream(monitor, lambda _: known.set())
        try:
            self._open("stdin", socket)
            await known.wait()
        finally:
            watching.close()
            if not socket.closed:
                socket.disable_monitor()

    def _connect(self, channel: str, kind: int) -> None:
        self._open(channel, self._socket(channel, kind))

    def _open(self, channel: str, socket: zmq.Socket[bytes]) -> None:
        try:
            address, release = self._sandbox.connect_address(f"{self.state.name}-{_PORTS[channel]}")
        except BaseException:
            socket.close(0)
            raise
        self._releases.append(release)
        socket.connect(address)
        self._streams[channel] = ZmqStream(socket, lambda frames: self._received(channel, frames))

    def _socket(self, channel: str, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        # After a reconnect the file might be another socket, planted by a cell.
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, IOPUB_MARK if channel == "iopub" else 0)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        else:
            socket.setsockopt(zmq.ROUTING_ID, self.state.routing_id.encode())
        return socket

    def _received(self, channel: str, frames: list[bytes]) -> None:
        try:
            _, message = self._signer.unpack(channel, frames)
        except (MessageError, BadSignature) as error:
            self._drop(f"a message of the interpreter on {channel} is lost: {error}")
            return
        if not self._welcomed.is_set() and channel == "iopub":
            self._welcomed.set()
        if b"iopub_welcome" in message.header:
            return
        self._receive(message)

    def send(self, message: Message) -> None:
        """Send on the message's channel."""
        self._streams[message.channel].send(self._signer.pack(message))

    def close(self) -> None:
        """Close the sockets; the process runs on."""
        for stream in self._streams.values():
            stream.close()
        for release in self._releases:
            release()
        self._streams.clear()
        self._releases.clear()
        self._context.term()
