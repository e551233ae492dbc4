"""Pausing a session: its sandbox is frozen, and thawed for whoever wants something done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from sandcell_gateway.engines.base import EngineError
from sandcell_gateway.shim.active_time import ActiveTime
from sandcell_gateway.shim.life import Life
from sandcell_gateway.shim.steps import Steps
from sandcell_gateway.shim.supervisor import Supervisor
from sandcell_wire.messages import Message, envelope
from sandcell_wire.states import Event, Status, next_status

RESUMING = frozenset(
    {
        *("execute_request", "input_reply", "comm_open", "comm_msg", "comm_close"),
        *("complete_request", "inspect_request"),
    }
)
"""What a paused session goes on for; what front ends send as they attach is not among them."""


class Pausing:
    """Of one session. `time` is the time in which it is not paused."""

    def __init__(
        self, life: Life, steps: Steps, supervisor: Supervisor, is_busy: Callable[[], bool]
    ) -> None:
        self.time = ActiveTime()
        self.was_paused = False
        """Whether the session is to be paused again once it is taken over."""
        self._life = life
        self._steps = steps
        self._supervisor = supervisor
        self._is_busy = is_busy

    @property
    def _is_paused(self) -> bool:
        return self._life.status is Status.PAUSED

    async def pause(self) -> None:
        """Freeze the sandbox; harmless when it is frozen.

        Raises `IllegalTransition`, or `EngineError` when it does not stop.
        """
        await self._steps.do(self.freeze)

    async def resume(self) -> None:
        """Let it go on where it was; harmless when it is not paused."""
        if self._is_paused or self.was_paused:
            self.was_paused = False
            await self._steps.do(self.thaw)

    def resume_soon(self) -> None:
        """Somebody wants something done."""
        self.was_paused = False
        if self._is_paused:
            self._steps.soon(self.thaw)

    def heard(self, message: Message) -> None:
        """A client sent this."""
        is_or_will_be = self._is_paused or self.was_paused
        if is_or_will_be and envelope(message).msg_type in RESUMING:
            self.resume_soon()

    async def freeze(self) -> None:
        """The step of `pause`."""
        if self._is_paused:
            return
        next_status(self._life.status, Event.PAUSE)
        try:
            await self._supervisor.freeze()
        except TimeoutError as error:
            raise EngineError("its processes do not stop, so it goes on; try again") from error
        self.time.stop()
        self._life.move(Event.PAUSE)

    async def again(self) -> None:
        """Pause it as it was before its supervisor was replaced, if nobody wants anything."""
        if self.was_paused:
            self.was_paused = False
            with contextlib.suppress(EngineError):
                await self.freeze()

    async def thaw(self) -> None:
        """The step of `resume`."""
        if not self._is_paused:
            return
        await self._supervisor.thaw()
        self.time.go()
        self._life.move(Event.RESUME, busy=self._is_busy())
