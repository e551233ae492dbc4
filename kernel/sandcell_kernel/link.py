"""The local kernel's side of the session: getting one, staying connected, leaving it.

Policy: an outage of any length is survived; a session that is gone is told once,
and the next cell gets a new one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from sandcell import AsyncClient, AsyncSession, ConflictError, NotFoundError, SandcellError
from sandcell.settings import ClientSettings
from sandcell_kernel.claims import Claims, HeldClaim, Identity, State, Takeover
from sandcell_kernel.kernel_info import NO_ISOLATION
from sandcell_kernel.ports import KernelPorts
from sandcell_kernel.router import Router
from sandcell_wire import control, frames
from sandcell_wire.messages import Message, MessageError
from sandcell_wire.states import FINAL

log = logging.getLogger(__name__)

FIRST_DELAY = 0.05
MAX_DELAY = 5.0
"""Bounds of the wait between attempts to reconnect, in seconds."""
NOTICE_AFTER = 2.0
"""Seconds of outage after which the running cell is told."""
LEAVE_TIMEOUT = 0.8
"""Seconds for the last request: a kernel must be gone within 1 s of shutdown."""
RECONNECTING = "sandcell: connection lost; the cell keeps running, reconnecting…\n"
CLOSE_BAD_DATA = 1007
CLOSE_GONE = 4404
"""The gateway's close code for a session that is final or unknown."""


@dataclass(frozen=True)
class Gone(Exception):
    """The session cannot come back."""

    why: str


class Link:
    """Connects a router to a session. `run` is its life."""

    def __init__(
        self,
        router: Router,
        ports: KernelPorts,
        settings: ClientSettings,
        identity: Identity,
        claims: Claims,
    ) -> None:
        self._router = router
        self._ports = ports
        self._settings = settings
        self._identity = identity
        self._claims = claims
        self.client = AsyncClient(settings=settings)
        self._client_id = router.interpreter
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._session: AsyncSession | None = None
        self._claim: HeldClaim | None = None
        self._outgoing: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._after: int | None = None
        self._engine = ""
        self._isolated = True
        self._creating: asyncio.Task[AsyncSession] | None = None

    # -- called by the router's ports ------------------------------------------------------

    def send(self, seen: int, message: Message) -> None:
        """Queue one message for the channel."""
        self._outgoing.append(frames.encode(seen, message))
        self._filled.set()

    def want(self) -> None:
        """A cell asks for a session again."""
        self._wanted.set()

    async def session(self) -> AsyncSession:
        """The session as the gateway sees it now. Raises `SandcellError` when there is none."""
        while self._session is None:
            if self._router.state.value == "failed":
                raise SandcellError(self._router.why, hint="Run a cell to start a session.")
            await self._changed.wait()
        return await self._session.refresh()

    # -- life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                session = self._session = await self._obtain()
                self._notify()
                await self._stay(session)
            except Gone as gone:
                self._forget()
                self._router.failed(
                    f"the session is gone: {gone.why}. Run the cell again to start a new "
                    "session; variables are gone",
                    lost=True,
                )
            except SandcellError as error:
                self._router.failed(_text(error))
            self._notify()
            await self._wanted.wait()
            self._wanted.clear()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _obtain(self) -> AsyncSession:
        """The session to use: a predecessor's, the configured one, or a new one."""
        if self._session is not None:
            return self._session
        found = await asyncio.to_thread(
            self._claims.take,
            self._identity,
            hold=self._settings.hold,
            grace=self._settings.close_grace,
        )
        if found is not None:
            session = await self._take_over(*found)
            if session is not None:
                return session
        if self._settings.session:
            return await self._named(self._settings.session)
        return await self._create()

    async def _take_over(self, claim: HeldClaim, how: Takeover) -> AsyncSession | None:
        try:
            session = await self.client.sessions.get(claim.claim.session_id)
        except NotFoundError:
            claim.close(forget=True)
            return None
        except BaseException:
            claim.close()  # as it was found, for the next attempt
            raise
        if session.status in FINAL:
            claim.close(forget=True)
            return None
        claim.write(State.RUNNING)
        self._claim = claim
        self._after = None
        if how is Takeover.FRESH:
            try:
                await session.restart(interpreter=self._router.interpreter)
            except SandcellError as error:
                log.warning("restart: %s", error)  # the next cell tries again and tells
        else:
            self._router.notify(
                f"sandcell: continuing session {str(session.id)[:8]} with its variables\n"
            )
        return session

    async def _named(self, name: str) -> AsyncSession:
        self._router.detaches = True
        self._after = None
        try:
            session = await self.client.sessions.get(name)
        except NotFoundError:
            try:
                session = await self._create(name)
            except ConflictError:  # another kernel was quicker
                session = await self.client.sessions.get(name)
                self._after = None
        self._claim = self._claims.create(str(session.id), self._identity)
        return session

    async def _create(self, name: str | None = None) -> AsyncSession:
        image = None if self.client.remote else sys.prefix
        self._after = 0
        self._router.last_seq = 0
        # A shutdown that comes meanwhile waits for the answer, so that no session is orphaned.
        self._creating = asyncio.ensure_future(
            self.client.sessions.create(
                name=name,
                interpreter=self._router.interpreter,
                image=image,
                metadata=self._metadata(),
            )
        )
        session = await asyncio.shield(self._creating)
        self._session = session
        if name is None:
            self._claim = self._claims.create(str(session.id), self._identity)
        return session

    def _metadata(self) -> dict[str, str]:
        notebook = self._identity.notebook
        return {"client": "kernel", **({"notebook": notebook} if notebook else {})}

    def _forget(self) -> None:
        self._session = None
        if self._claim is not None:
            self._claim.close(forget=True)
            self._claim = None

    # -- the channel -------------------------------------------------------------------------

    async def _stay(self, session: AsyncSession) -> None:
        """Connect, and again after every outage. Raises `Gone` or `SandcellError`."""
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
            if not told and self._router.waits and time.monotonic() - down_since > NOTICE_AFTER:
                told = True
                self._router.tell(RECONNECTING)
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, hides nothing)
            await asyncio.sleep(delay * jitter)
            delay = min(delay * 2, MAX_DELAY)

    async def _connect(self, session: AsyncSession) -> connect:
        target = await self.client.channel_target(
            session.id, client=self._client_id, after=self._after
        )
        options: dict[str, Any] = {
            "additional_headers": target.headers,
            "subprotocols": [frames.SUBPROTOCOL],
            "compression": None,
            "max_size": frames.MAX_FRAME_BYTES,
        }
        if target.unix_socket is not None:
            return unix_connect(str(target.unix_socket), target.url, **options)
        return connect(target.url, **options)

    async def _serve(self, socket: ClientConnection) -> None:
        """Until the channel ends. Raises `Gone` when the gateway closed it for good."""
        self._outgoing.clear()
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(socket))
            try:
                await self._receive(socket)
            finally:
                sender.cancel()
        if socket.close_code == CLOSE_GONE:
            raise Gone(socket.close_reason or "it was closed")

    async def _receive(self, socket: ClientConnection) -> None:
        try:
            async for data in socket:
                if isinstance(data, str):
                    self._control(control.load(data))
                    continue
                seq, message = frames.decode(data)
                self._router.from_session(seq, message)
                self._after = seq
                await self._ports.room()
        except ConnectionClosed:
            pass  # how it was closed is looked at by `_serve`
        except (frames.FrameError, MessageError, control.ControlError) as error:
            log.warning("the gateway broke the protocol: %s", error)
            await socket.close(CLOSE_BAD_DATA, str(error)[:120])

    async def _send(self, socket: ClientConnection) -> None:
        try:
            while True:
                self._filled.clear()
                while self._outgoing:
                    await socket.send(self._outgoing.popleft())
                await self._filled.wait()
        except ConnectionClosed:
            pass  # the receiver sees it too; unacknowledged requests are sent again

    def _control(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "hello":
                self._hello(message)
            case "ack":
                self._router.acknowledged(message["msg_ids"])
            case "kernel_info":
                self._router.info.learn(message["content"], self._engine, self._isolated)
            case "status":
                self._router.interpreter = message["interpreter"]
            case "gap":
                count = message["last"] - message["first"] + 1
                self._router.tell(f"sandcell: {count} messages are lost: {message['reason']}\n")
            case _:
                log.debug("control message of a newer gateway: %s", message["type"])

    def _hello(self, hello: dict[str, Any]) -> None:
        self._router.interpreter = hello["interpreter"]
        if self._after is None:
            self._after = self._router.last_seq = hello["seq"]
        if not hello["isolated"] and self._isolated:
            self._router.notify(NO_ISOLATION.format(engine=hello["engine"]) + "\n")
        self._engine, self._isolated = hello["engine"], hello["isolated"]
        self._router.connected()

    # -- leaving -----------------------------------------------------------------------------

    def beat(self) -> None:
        """Note that this process lives."""
        if self._claim is not None:
            self._claim.beat()

    async def leave(self, state: State) -> None:
        """End or leave the session as PROTOCOL says; takes at most `LEAVE_TIMEOUT` seconds."""
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await self._leave(state)
        except (SandcellError, TimeoutError, OSError) as error:
            log.warning("leaving the session: %s", error)
        await self.client.aclose()

    async def _leave(self, state: State) -> None:
        if self._creating is not None and self._session is None:
            self._session = await self._creating
        if self._claim is not None:
            self._claim.write(state)
        if state is State.RESTARTING or self._session is None:
            return
        if self._router.detaches:
            if self._claim is not None and state is State.CLOSING:
                self._claim.close(forget=True)
            return
        grace = self._settings.close_grace if state is State.CLOSING else self._settings.hold
        await self._session.close(grace=grace)
        if grace == 0 and self._claim is not None:
            self._claim.close(forget=True)


def _text(error: SandcellError) -> str:
    return f"{error} {error.hint}" if error.hint else str(error)


def _raise_if_final(error: Exception) -> None:
    """Raise `Gone`, or the refusal itself, when trying again cannot help."""
    if isinstance(error, NotFoundError):
        raise Gone(str(error)) from error
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (404, 410):
            raise Gone("the gateway does not know it") from error
        if status in (401, 403):
            raise SandcellError(
                "the gateway refused the token",
                hint="Check SANDCELL_TOKEN, then run the cell again.",
            ) from error
