"""The gateway's line to one shim: requests one way, the session's status the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from sandcell_gateway.errors import ShimRefused, ShimUnreachable
from sandcell_wire.codes import Code
from sandcell_wire.control import ControlError
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
                    future.set_exception(_lost())

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
            raise _lost() from error
        finally:
            self._waiting.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()
        return _result(answer)


def _lost() -> ShimUnreachable:
    return ShimUnreachable("the line to the session's supervisor ended", "try again")


def _parse(text: str) -> dict[str, Any]:
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


@asynccontextmanager
async def open_control(
    socket: Path, on_status: Callable[[StatusReport], None]
) -> AsyncGenerator[ControlLink]:
    """Connect to a shim. Raises one of `UNREACHABLE` when it is not there."""
    async with unix_connect(
        str(socket),
        "ws://shim/control",
        compression=None,
        max_size=MAX_MESSAGE,
        open_timeout=CONNECT_TIMEOUT,
        proxy=None,
    ) as connection:
        yield ControlLink(connection, on_status)
