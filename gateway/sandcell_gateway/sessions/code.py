"""Code that a request runs and waits for: as one answer, or as a stream of what it shows."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast, get_args

from sandcell_gateway.auth import Principal
from sandcell_gateway.errors import BadRequest, GatewayError, ShimLost
from sandcell_gateway.history.reading import Reader
from sandcell_gateway.sessions.control import read_channel
from sandcell_gateway.sessions.history import TIMEOUT, HistoryService
from sandcell_gateway.sessions.patience import Patience
from sandcell_gateway.sessions.service import SessionService
from sandcell_wire import control, frames
from sandcell_wire.messages import Message, MessageError, envelope
from sandcell_wire.models import (
    CodeRun,
    ExecutionEnded,
    ExecutionModel,
    ExecutionOutput,
    ExecutionStarted,
)
from sandcell_wire.showing import bundle_of

LOOK = 60.0
"""Seconds after which a shim that says nothing is asked again."""

_SHOWING = frozenset(get_args(ExecutionOutput.model_fields["msg_type"].annotation))

Entry = dict[str, Any]
"""An execution in the shim's index (`shim.executions.Execution`)."""
Event = ExecutionStarted | ExecutionOutput | ExecutionEnded


@dataclass(frozen=True)
class Running:
    """One execution of one owner's session."""

    principal: Principal
    session_id: str
    entry: Entry

    @property
    def id(self) -> str:
        """The execution's, and the name of its client."""
        return str(self.entry["id"])


class CodeService:
    """Runs code in the sessions that a `SessionService` keeps."""

    def __init__(self, sessions: SessionService, history: HistoryService) -> None:
        self._sessions = sessions
        self._history = history

    async def start(self, principal: Principal, session_id: str, wanted: CodeRun) -> Running:
        """Have it run. With the same id it is the same execution.

        Raises `SessionNotFound`, `SessionEnded`, `ShimUnreachable` or `ShimRefused`, and
        `BadRequest` for the id of what somebody else runs.
        """
        name = wanted.id or uuid.uuid4().hex
        args = {"id": name, "code": wanted.code, "timeout": wanted.timeout}
        entry = await self._sessions.ask(principal, session_id, "execute", args, TIMEOUT)
        if entry["client"] != name:
            raise BadRequest(
                f"id: {name} is an execution that was not started here", "choose another id"
            )
        return Running(principal, session_id, entry)

    async def run(self, principal: Principal, session_id: str, wanted: CodeRun) -> ExecutionModel:
        """Run it to its end. Raises as `start`; then it may still run."""
        running = await self.start(principal, session_id, wanted)
        entry = await self._end(running)
        found = await self._history.get(principal, session_id, running.id)
        await self._heard(running, entry["last"])
        return found

    async def _end(self, running: Running) -> Entry:
        """The entry of an execution that has ended."""
        args = {"id": running.id, "seconds": LOOK}
        while True:
            entry = await self._ask(running, "wait", args, TIMEOUT + LOOK)
            if entry["ended"] is not None:
                return entry

    async def _ask(self, running: Running, op: str, args: Entry, timeout: float = TIMEOUT) -> Entry:
        return await self._sessions.ask(running.principal, running.session_id, op, args, timeout)

    async def _heard(self, running: Running, seq: int) -> None:
        """Whoever attaches later need not be shown it."""
        with contextlib.suppress(GatewayError):  # the answer counts more
            await self._ask(running, "heard", {"client": running.id, "seq": seq})

    async def follow(self, running: Running) -> AsyncGenerator[Event]:
        """What it shows, from its beginning to its end. Raises as `start`."""
        yield ExecutionStarted(execution=_model(running.entry))
        progress, patience = Progress(running.id, int(running.entry["first"])), Patience()
        while not progress.has_ended():
            try:
                async with aclosing(self._channel(running, progress.seen)) as channel:
                    async for data in channel:
                        patience.back()
                        event = progress.take(data)
                        if event is not None:
                            yield event
                        if progress.has_ended():
                            break
            except ShimLost as error:
                await patience.away(error)
        entry = await self._end(running)
        await self._heard(running, entry["last"])
        found = _model(entry).model_copy(update={"lost_messages": progress.lost})
        yield ExecutionEnded(execution=found)

    async def _channel(self, running: Running, after: int) -> AsyncGenerator[bytes | str]:
        """What the shim says, until the line ends; then raises `ShimLost`."""
        keeper = await self._sessions.keeper(running.principal, running.session_id)
        async with aclosing(read_channel(keeper.socket, running.id, after)) as channel:
            async for data in channel:
                yield data


class Progress:
    """How far a channel has told of one execution. Pure."""

    def __init__(self, id: str, seen: int) -> None:
        self._id = id
        self.seen = seen
        """The number of the last message."""
        self.lost = 0
        """Messages that the journal has dropped."""
        self._ended = False

    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self._ended

    def take(self, data: bytes | str) -> ExecutionOutput | None:
        """One frame or control message; what of it is shown."""
        if isinstance(data, str):
            self._control(control.load(data))
            return None
        self.seen, message = frames.decode(data)
        try:
            return self._message(message)
        except (MessageError, RecursionError):
            return None  # recorded as it came, and shown nowhere

    def _control(self, message: dict[str, Any]) -> None:
        if message["type"] == "gap":
            self.lost += message["last"] - message["first"] + 1
        elif message["type"] == "open" and self._id not in message["msg_ids"]:
            self._ended = True  # in the gap, or before we asked

    def _message(self, message: Message) -> ExecutionOutput | None:
        head = envelope(message)
        if head.parent_id != self._id:
            return None
        if message.channel == "shell":
            self._ended = True
        if message.channel != "iopub" or head.msg_type not in _SHOWING:
            return None
        content = bundle_of(message.content_dict(), {})
        return ExecutionOutput(seq=self.seen, msg_type=cast("Any", head.msg_type), content=content)


def _model(entry: Entry) -> ExecutionModel:
    (model,) = Reader([entry]).executions(outputs=False)
    return model
