"""The gateway's line to one shim: requests one way, the session's status the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from sandcell_gateway.errors import ShimLost, ShimRefused, ShimUnreachable
from sandcell_gateway.journal.records import Entry, parse_all
from sandcell_wire.codes import Code
from sandcell_wire.control import ControlError
from sandcell_wire.frames import MAX_FRAME_BYTES
from sandcell_wire.models import Reason
from sandcell_wire.states import Status

CONNECT_TIMEOUT = 10.0
"""Seconds for a shim to answer the handshake; a fresh one imports first."""
MAX_MESSAGE = 1 << 20
"""Most bytes of one message of the shim."""
UNREACHABLE = (OSError, TimeoutError, InvalidHandshake, InvalidMessage, ConnectionClosed)
"""What a shim that is not there, or not yet, raises."""


class StatusReport:
    """What a shim says about its session."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        try:
            self.status = Status(message["status"])
            reason = message.get("reason")
            self.reason = None if reason is None else Reason.model_validate(reason)
            self.interpreter = str(message.get("interpreter") or "")
        except (KeyError, ValueError) as error:
            raise ControlError(f"a status report with a status and a reason: {error}") from error


class ControlLink:
    """An open line. Requests may overlap; answers are matched by their id."""

    def __init__(
        self, connection: ClientConnection, on_status: Callable[[StatusReport], None]
    ) -> None:
        self._connection = connection
        self._on_status = on_status
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0

    async def run(self) -> None:
        """Read until the line ends. Raises `ControlError` for what is not the protocol."""
        try:
            async for text in self._connection:
                if isinstance(text, bytes):
                    raise ControlError("the control line carries text only")
                self._take(text)
        except ConnectionClosed:
            return
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ShimLost())

    def _take(self, text: str) -> None:
        message = _parse(text)
        number = message.get("id")
        if isinstance(number, int):
            future = self._waiting.get(number)
            if future is not None and not future.done():
                future.set_result(message)
        elif message.get("event") == "status":
            self._on_status(StatusReport(message))

    async def request(
        self, op: str, args: Mapping[str, Any] | None = None, *, timeout: float
    ) -> dict[str, Any]:
        """Ask and wait for the answer.

        Raises `ShimRefused` with the shim's code, or `ShimUnreachable` when no answer
        came within `timeout` seconds.
        """
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(timeout):
                await self._connection.send(
                    json.dumps({"id": number, "op": op, "args": dict(args or {})})
                )
                answer = await future
        except TimeoutError as error:
            raise ShimUnreachable(
                f"the session's supervisor did not answer `{op}` within {timeout:g} seconds",
                "try again",
            ) from error
        except ConnectionClosed as error:
            raise ShimLost from error
        finally:
            self._waiting.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()
        return _result(answer)


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except ValueError as error:
        raise ControlError(f"a control message is JSON: {error}") from error
    if not isinstance(message, dict):
        raise ControlError("a control message is a JSON object")
    return cast("dict[str, Any]", message)


def _result(answer: Mapping[str, Any]) -> dict[str, Any]:
    if answer.get("ok"):
        result = answer.get("result")
        return cast("dict[str, Any]", result) if isinstance(result, dict) else {}
    try:
        code = Code(answer.get("code", ""))
    except ValueError:
        code = Code.OPERATION_FAILED
    raise ShimRefused(code, str(answer.get("text") or "the session's supervisor refused"))


async def read_journal(socket: Path, first: int, last: int | None) -> AsyncGenerator[Entry]:
    """Entries of the session's journal, from record `first` to `last`, or to the newest.

    Raises as `read_raw`.
    """
    async for data in read_raw(socket, first, last):
        for entry in parse_all(data):
            yield entry


async def read_raw(socket: Path, first: int, last: int | None) -> AsyncGenerator[bytes]:
    """The same as they are stored, each piece some whole entries.

    Raises `ShimLost` when the line ends before they do.
    """
    query = {"first": first, **({} if last is None else {"last": last})}
    try:
        async with _connect(socket, f"/journal?{urlencode(query)}", MAX_FRAME_BYTES) as connection:
            async for data in connection:
                if isinstance(data, bytes):
                    yield data
    except UNREACHABLE as error:
        raise ShimLost from error


async def read_channel(socket: Path, client: str, after: int) -> AsyncGenerator[bytes | str]:
    """What the shim sends a client, from behind a record: frames, and control messages.

    Raises `ShimLost` when the line cannot be had, or ends.
    """
    query = urlencode({"client": client, "after": after})
    try:
        async with _connect(socket, f"/channels?{query}", MAX_FRAME_BYTES) as connection:
            while True:
                yield await connection.recv()
    except UNREACHABLE as error:
        raise ShimLost from error


async def read_command(
    socket: Path, id: str, after: int, *, live: bool
) -> AsyncGenerator[bytes | str]:
    """What the shim says of a command's output, from behind a position; at last how it is.

    If not `live`, without waiting for more than is there. Raises `ShimLost` when the line
    cannot be had, or ends.
    """
    query = urlencode({"id": id, "after": after, "live": int(live)})
    try:
        async with _connect(socket, f"/command?{query}", MAX_MESSAGE) as connection:
            while True:
                yield await connection.recv()
    except UNREACHABLE as error:
        raise ShimLost from error


@asynccontextmanager
async def open_files(socket: Path) -> AsyncGenerator[ClientConnection]:
    """A connection for one operation on files. Raises `ShimLost`, also when it ends."""
    try:
        async with _connect(socket, "/files", MAX_FRAME_BYTES) as connection:
            yield connection
    except UNREACHABLE as error:
        raise ShimLost from error


def result_of(text: str | bytes) -> dict[str, Any]:
    """The result that an answer holds. Raises `ShimRefused`."""
    return _result(_parse(text))


def _connect(socket: Path, target: str, most: int) -> connect:
    return unix_connect(
        str(socket),
        f"ws://shim{target}",
        compression=None,
        max_size=most,
        open_timeout=CONNECT_TIMEOUT,
        proxy=None,
    )


@asynccontextmanager
async def open_control(
    socket: Path, on_status: Callable[[StatusReport], None]
) -> AsyncGenerator[ControlLink]:
    """Connect to a shim. Raises one of `UNREACHABLE` when it is not there."""
    async with _connect(socket, "/control", MAX_MESSAGE) as connection:
        yield ControlLink(connection, on_status)
