"""The local kernel's WebSocket to its session, made anew after every outage."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from sandcell import AsyncClient, AsyncSession, NotFoundError, SandcellError
from sandcell_kernel import keepalive
from sandcell_kernel.kernel_info import NO_ISOLATION
from sandcell_kernel.ports import KernelPorts
from sandcell_kernel.router import Router
from sandcell_wire import control, frames
from sandcell_wire.codes import Code
from sandcell_wire.messages import Message, MessageError

log = logging.getLogger(__name__)

FIRST_DELAY = 0.05
MAX_DELAY = 5.0
"""Bounds of the wait between attempts to reconnect, in seconds."""
NOTICE_AFTER = 2.0
"""Seconds of outage after which the running cell is told."""
CLOSE_TIMEOUT = 0.1
"""Seconds that the gateway has to say goodbye, too: nothing depends on it."""
SEEN_INTERVAL = 0.5
"""Least seconds between two reports of how far we are."""
LOST_TAIL = (
    "sandcell: the session's machine lost its newest messages, probably with its power; "
    "what came last may be missing\n"
)
RECONNECTING = "sandcell: connection lost; the cell keeps running, reconnecting…\n"
GONE = {
    Code.SESSION_EXPIRED.value: "it was closed",
    Code.SESSION_NOT_FOUND.value: "the gateway does not know it",
}
"""The close's reason in words."""

After = int | Literal["missed"] | None
"""Where to begin: behind a number, with what nobody has seen, or (None) with what comes next."""


@dataclass(frozen=True)
class Gone(Exception):
    """The session cannot come back."""

    why: str


class Channel:
    """Carries a router's messages to one session after the other."""

    def __init__(
        self, router: Router, ports: KernelPorts, client: AsyncClient, changed: Callable[[], None]
    ) -> None:
        """`changed` is called when a session is reached, and when what was missed has ended."""
        self._router = router
        self._ports = ports
        self._client = client
        self.client_id = router.interpreter
        """Names us across reconnects."""
        self._changed = changed
        self._outgoing: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._arrived = asyncio.Event()
        self.after: After = None
        """Where the session's messages go on."""
        self._session_id: uuid.UUID | None = None
        self._interpreter: str | None = None
        """The session's interpreter, as far as we know."""
        self._engine = ""
        self._isolated = True

    def send(self, seen: int, message: Message) -> None:
        """Queue one message."""
        self._outgoing.append(frames.encode(seen, message))
        self._filled.set()

    async def run(self, session: AsyncSession, after: After) -> None:
        """Connect, and again after every outage. Raises `Gone` or `SandcellError`."""
        if session.id != self._session_id:
            self._session_id, self._interpreter = session.id, None
        self.after = after
        self._router.last_seq = after if isinstance(after, int) else 0
        delay, down_since = FIRST_DELAY, time.monotonic()
        told = False
        while True:
            try:
                async with await self._connect(session) as socket:
                    delay, told = FIRST_DELAY, False
                    try:
                        await self._serve(socket)
                    finally:
                        down_since = time.monotonic()
                        self._router.disconnected()
            except (OSError, TimeoutError, WebSocketException, SandcellError) as error:
                _raise_if_final(error)
                log.info("channel: %r", error)
            if not told and self._router.busy and time.monotonic() - down_since > NOTICE_AFTER:
                told = True
                self._router.tell(RECONNECTING)
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, hides nothing)
            await asyncio.sleep(delay * jitter)
            delay = min(delay * 2, MAX_DELAY)

    async def _connect(self, session: AsyncSession) -> connect:
        target = await self._client.channel_target(
            session.id, client=self.client_id, after=self.after
        )
        options: dict[str, Any] = {
            "additional_headers": target.headers,
            "subprotocols": [frames.SUBPROTOCOL],
            "compression": None,
            "max_size": frames.MAX_FRAME_BYTES,
            "create_connection": keepalive.HeardConnection,
            "ping_interval": None,  # `keepalive` does it, see there
            "close_timeout": CLOSE_TIMEOUT,
        }
        if target.unix_socket is not None:
            return unix_connect(str(target.unix_socket), target.url, **options)
        return connect(target.url, ssl=target.tls, proxy=target.proxy, **options)

    async def _serve(self, socket: ClientConnection) -> None:
        """Until the channel ends. Raises `Gone` when the gateway closed it for good."""
        self._outgoing.clear()
        async with asyncio.TaskGroup() as group:
            assert isinstance(socket, keepalive.HeardConnection)
            helpers = [
                group.create_task(self._send(socket)),
                group.create_task(self._report(socket)),
                group.create_task(keepalive.watch(socket, self._client.settings.keepalive)),
            ]
            try:
                await self._receive(socket)
            finally:
                for helper in helpers:
                    helper.cancel()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await self._tell_seen(socket)
        if socket.close_code == control.Close.FINAL:
            raise Gone(GONE.get(socket.close_reason or "", "it has ended"))

    async def _receive(self, socket: ClientConnection) -> None:
        try:
            async for data in socket:
                followed = self._router.follows
                if isinstance(data, str):
                    self._control(control.load(data))
                else:
                    self._message(data)
                if followed and not self._router.follows:
                    self._changed()
                await self._ports.room()
        except ConnectionClosed:
            pass  # how it was closed is looked at by `_serve`
        except (frames.FrameError, MessageError, control.ControlError) as error:
            log.warning("the gateway broke the protocol: %s", error)
            await socket.close(control.Close.BAD_DATA, str(error)[:120])

    def _message(self, data: bytes) -> None:
        seq, message = frames.decode(data)
        self._router.from_session(seq, message)
        self.after = seq
        self._arrived.set()

    async def _send(self, socket: ClientConnection) -> None:
        try:
            while True:
                self._filled.clear()
                while self._outgoing:
                    await socket.send(self._outgoing.popleft())
                await self._filled.wait()
        except ConnectionClosed:
            pass  # the receiver sees it too; unacknowledged requests are sent again

    async def _report(self, socket: ClientConnection) -> None:
        """Say now and then how far we are: who attaches later is shown what came after that."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await asyncio.sleep(SEEN_INTERVAL)
            await self._tell_seen(socket)

    async def _tell_seen(self, socket: ClientConnection) -> None:
        if isinstance(self.after, int):
            with contextlib.suppress(ConnectionClosed):
                await socket.send(control.dump(control.Seen(type="seen", seq=self.after)))

    # -- what the gateway says ---------------------------------------------------------------

    def _control(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "hello":
                self._hello(message)
            case "missed":
                self.after = message["after"]
                self._router.missed(message)
                self._connected()
            case "ack":
                self._router.acknowledged(message["msg_ids"])
            case "kernel_info":
                self._router.info.learn(message["content"], self._engine, self._isolated)
            case "status":
                self._met(message["interpreter"])
            case "gap":
                count = message["last"] - message["first"] + 1
                self._router.gap(f"sandcell: {count} messages are lost: {message['reason']}\n")
            case "notice":
                self._router.notify(f"{message['text']}\n")
            case "open":
                self._router.still_open(message["msg_ids"])
            case _:
                log.debug("control message of a newer gateway: %s", message["type"])

    def _hello(self, hello: dict[str, Any]) -> None:
        self._met(hello["interpreter"])
        if not hello["isolated"] and self._isolated:
            self._router.notify(NO_ISOLATION.format(engine=hello["engine"]) + "\n")
        self._engine, self._isolated = hello["engine"], hello["isolated"]
        if isinstance(self.after, str):
            return  # `missed` follows, and says where it begins
        if self.after is not None and hello["seq"] < self.after:
            # After a loss of power the session's machine counts on from what it had stored.
            self._router.notify(LOST_TAIL)
            self.after = None
        if self.after is None:
            self.after = self._router.last_seq = hello["seq"]
        self._connected()

    def _met(self, interpreter: str) -> None:
        if self._interpreter not in (None, interpreter):
            self._router.replaced()
        self._interpreter = self._router.interpreter = interpreter

    def _connected(self) -> None:
        self._router.connected()
        self._changed()


def _raise_if_final(error: Exception) -> None:
    """Raise `Gone`, or the refusal itself, when trying again cannot help."""
    if isinstance(error, NotFoundError):
        raise Gone(str(error)) from error
    # 404 is a proxy's, whose gateway is away: ours accepts and closes with 4404.
    if isinstance(error, InvalidStatus) and error.response.status_code in (401, 403):
        raise SandcellError(
            f"the gateway refused the token{_detail(error.response.body)}",
            hint="Check SANDCELL_TOKEN, then run the cell again.",
        ) from error


def _detail(body: bytes | bytearray | None) -> str:
    """What a problem document says, such as that the token has expired."""
    try:
        problem: Any = json.loads(body or b"")
        return f": {problem['detail']}"
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""  # of something else on the way
