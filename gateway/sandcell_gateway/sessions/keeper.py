"""One live session's keeper: it closes the gap between what should be and what is.

The row's `desired` is changed by requests, everything else by the keeper alone, one
step at a time, each stored before the next. A step that fails is tried again, later
and later; a restart of the gateway is just another step. The keeper is the only place
that starts, adopts or closes the session's shim.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from sandcell_gateway.errors import GatewayError, ShimUnreachable
from sandcell_gateway.sessions.control import UNREACHABLE, ControlLink, StatusReport, open_control
from sandcell_gateway.sessions.places import Places
from sandcell_gateway.sessions.processes import ShimProcess, same_boot
from sandcell_gateway.sessions.view import Watched, follow, model_of, row_reason, stored_status
from sandcell_gateway.store.sessions import SessionStore
from sandcell_gateway.store.tables import SessionRow
from sandcell_wire.control import ControlError
from sandcell_wire.models import Reason, SessionModel
from sandcell_wire.states import FINAL, Event, IllegalTransition, Status, next_status

RUNNING = "running"
CLOSED = "closed"

MAX_CRASHES = 3
"""Ends of a shim within `CRASH_WINDOW` after which it is not started again."""
CRASH_WINDOW = 60.0
"""Seconds."""
LINK_WAIT = 30.0
"""Seconds for a line to a shim that is asked to close; it may have just been started."""
CLOSE_TIMEOUT = 30.0
"""Seconds for a shim to end its sandbox and itself."""
LINK_TIMEOUT = 60.0
"""Seconds without a line after which a shim counts as hung and is ended."""
FIRST_RETRY = 0.1
LAST_RETRY = 30.0
"""Seconds before a failed step is tried again; doubled each time."""

_log = structlog.get_logger(__name__)


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


@dataclass
class Shim:
    """The session's shim while it runs, and the line to it while it is open."""

    process: ShimProcess
    link: ControlLink | None = None


class Keeper:
    """Keeps one session. `run` is its life; the other methods may be called meanwhile."""

    def __init__(
        self, row: SessionRow, store: SessionStore, places: Places, *, recovered: bool
    ) -> None:
        self.row = row
        self.status = Status(row.status)
        self.reason = row_reason(row)
        self.interpreter = row.interpreter
        self.changed = Watched()
        self.attached = 0
        """How many channels are open."""
        self._store = store
        self._places = places
        self._shim: Shim | None = None
        self._found = not recovered
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)
        self._wake = asyncio.Event()
        self._log = _log.bind(session=row.id)

    # What others see and ask -----------------------------------------------------

    @property
    def model(self) -> SessionModel:
        """The session as the API shows it."""
        return model_of(self.row, self.status, self.reason, self.interpreter)

    @property
    def final(self) -> bool:
        """Nothing can happen to it any more."""
        return self.status in FINAL

    @property
    def link(self) -> ControlLink | None:
        """The open line to the shim."""
        return self._shim.link if self._shim is not None else None

    @property
    def closing(self) -> bool:
        """Its end has begun."""
        return self.row.desired == CLOSED

    @property
    def given_up(self) -> bool:
        """Nothing of it runs, and nothing will unless somebody asks."""
        return self.final or (self._shim is None and self.status is Status.ERROR)

    @property
    def reachable(self) -> bool:
        """Whether a channel can be opened to the shim's socket."""
        return self._shim is not None and not self._shim.process.ended.is_set()

    async def close_at(self, moment: datetime | None) -> None:
        """Ask to close the session then; None withdraws it, unless it closes already."""
        if self.row.desired == CLOSED or self.final:
            return
        if moment != self.row.closes_at:
            await self._write(closes_at=moment)
        self._wake.set()

    async def request(self, op: str, args: dict[str, Any], timeout: float) -> None:
        """Pass a request to the shim. Raises what `ControlLink.request` raises."""
        await self.changed.until(lambda: self.link is not None or self.given_up, timeout)
        link = self.link
        if link is None:
            raise ShimUnreachable("the session's supervisor is not running now", "try again")
        await link.request(op, args, timeout=timeout)

    async def revive(self, interpreter: str | None) -> bool:
        """Start again after the shim was given up. False when it runs."""
        if self._shim is not None or self.status is not Status.ERROR:
            return False
        self._crashes.clear()
        if self.row.shim is not None and not same_boot(self.row.shim):
            # The sandbox went with the machine, there is nothing to adopt.
            self._places.sandbox.unlink(missing_ok=True)
        self.interpreter = interpreter or self.interpreter
        await self._write(shim=None)
        await self._move(Event.RESTART, None)
        self._wake.set()
        return True

    # Life --------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the session is final, or cancelled: then the shim runs on."""
        retry = FIRST_RETRY
        try:
            async with asyncio.TaskGroup() as group:
                while not self.final:
                    self._wake.clear()
                    try:
                        pause = await self._step(group)
                        retry = FIRST_RETRY
                    except Exception as error:
                        self._log_failure(error)
                        pause, retry = retry, min(2 * retry, LAST_RETRY)
                    if not self.final:
                        await self._sleep(pause)
        finally:
            if self._shim is not None:
                self._shim.process.release()
            self.changed.notify()

    def _log_failure(self, error: Exception) -> None:
        if isinstance(error, GatewayError | IllegalTransition):
            self._log.warning("step failed", error=str(error))
        else:
            self._log.error("step failed", exc_info=error)

    async def _sleep(self, pause: float | None) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        """One step towards the desired state; how many seconds until the next is due."""
        if not self._found:
            self._find(group)
        await self._persist()
        closes_at = self.row.closes_at
        if closes_at is not None and closes_at <= now() and self.row.desired != CLOSED:
            await self._write(desired=CLOSED)
        if self.row.desired == CLOSED:
            await self._close(group)
            return None
        if self._shim is None and self.status is not Status.ERROR:
            await self._start(group)
        return None if closes_at is None else max(0.0, (closes_at - now()).total_seconds())

    async def _write(self, **values: Any) -> None:
        row = await self._store.change(self.row.id, updated_at=now(), **values)
        if row is not None:
            self.row = row
        self.changed.notify()

    async def _move(self, event: Event, reason: Reason | None) -> None:
        self.status, self.reason = next_status(self.status, event), reason
        await self._persist()
        self.changed.notify()

    async def _persist(self) -> None:
        if not self._unsaved:
            return
        await self._write(
            status=stored_status(self.status).value,
            reason_code=self.reason.code if self.reason else None,
            reason_text=self.reason.text if self.reason else None,
            interpreter=self.interpreter,
        )

    @property
    def _unsaved(self) -> bool:
        present = (stored_status(self.status).value, self.reason, self.interpreter)
        return present != (self.row.status, row_reason(self.row), self.row.interpreter)

    async def _fail(self, code: str, text: str) -> None:
        self._log.warning("session failed", code=code, reason=text)
        await self._move(Event.FAIL, Reason(code=code, text=text))

    # The shim ------------------------------------------------------------------------

    def _find(self, group: asyncio.TaskGroup) -> None:
        """After a start of the gateway: is there a shim already?"""
        self._found = True
        if self._places.spec.exists():
            process = ShimProcess.find(self.row.shim, self._places)
            if process is not None:
                self._watch(group, process)

    async def _start(self, group: asyncio.TaskGroup) -> None:
        if self.row.shim is not None and not same_boot(self.row.shim):
            await self._fail("host_lost", "the machine was restarted; files are kept")
        elif not self._places.spec.exists():
            await self._fail("start_failed", "the gateway stopped while the session was made")
        elif self._crashed_too_often():
            await self._fail(
                "shim_crashed",
                f"the session's supervisor ended {MAX_CRASHES} times within "
                f"{CRASH_WINDOW:g} seconds; see {self._places.log}",
            )
        else:
            await self._start_process(group)

    def _crashed_too_often(self) -> bool:
        full = len(self._crashes) == MAX_CRASHES
        return full and self._crashes[-1] - self._crashes[0] < CRASH_WINDOW

    async def _start_process(self, group: asyncio.TaskGroup) -> None:
        await asyncio.to_thread(self._places.make, self.row.uid)
        process = ShimProcess.start(self._places)
        self._watch(group, process)
        await self._write(shim=process.stored)
        self._log.info("shim started", pid=process.ref.pid)

    def _watch(self, group: asyncio.TaskGroup, process: ShimProcess) -> None:
        self._shim = Shim(process)
        group.create_task(self._accompany(self._shim))
        self.changed.notify()

    async def _accompany(self, shim: Shim) -> None:
        """Hold the line to the shim until the shim ends."""
        async with asyncio.TaskGroup() as group:
            line = group.create_task(self._hold_line(shim))
            await shim.process.ended.wait()
            line.cancel()
        self._shim = None
        if self.row.desired != CLOSED:
            self._crashes.append(time.monotonic())
            self._log.warning("shim ended", exit_code=shim.process.exit_code)
        self._wake.set()
        self.changed.notify()

    async def _hold_line(self, shim: Shim) -> None:
        retry, alone_since = FIRST_RETRY, time.monotonic()
        while True:
            try:
                async with open_control(self._places.socket, self._on_status) as link:
                    retry, shim.link = FIRST_RETRY, link
                    self.changed.notify()
                    await link.run()
            except UNREACHABLE as error:
                self._log.debug("no line to the shim", error=str(error))
            except ControlError as error:
                self._log.warning("the shim broke the protocol", error=str(error))
            except Exception as error:
                self._log.error("the line to the shim failed", exc_info=error)
            if shim.link is not None:
                shim.link, alone_since = None, time.monotonic()
            if time.monotonic() - alone_since > LINK_TIMEOUT:
                self._log.error("shim hangs, ending it")
                shim.process.kill()
            await asyncio.sleep(retry)
            retry = min(2 * retry, 2.0)

    def _on_status(self, report: StatusReport) -> None:
        if report.status is Status.TERMINATED:
            return  # the end of the process is what counts
        try:
            self.status = follow(self.status, report.status)
        except IllegalTransition as error:
            self._log.warning("impossible report", error=str(error))
            return
        self.reason = report.reason
        self.interpreter = report.interpreter or self.interpreter
        if self._unsaved:
            self._wake.set()
        self.changed.notify()

    # The end ---------------------------------------------------------------------------

    async def _close(self, group: asyncio.TaskGroup) -> None:
        if self._shim is None and self._places.sandbox.exists() and self._same_machine():
            # Only a shim can end a sandbox, so one is started to do that.
            await self._start_process(group)
        if self._shim is not None:
            await self._end_shim(self._shim)
        await asyncio.to_thread(self._places.remove)
        await self._move(Event.CLOSE, Reason(code="closed", text="closed on request"))
        self._log.info("session closed")

    def _same_machine(self) -> bool:
        return self.row.shim is None or same_boot(self.row.shim)

    async def _end_shim(self, shim: Shim) -> None:
        try:
            ended = shim.process.ended
            await self.changed.until(lambda: bool(shim.link) or ended.is_set(), LINK_WAIT)
            if shim.link is not None and not ended.is_set():
                await shim.link.request("close", timeout=CLOSE_TIMEOUT)
        except ShimUnreachable:
            # It may have ended before its answer was read.
            self._log.debug("no answer to close")
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await shim.process.ended.wait()
        except TimeoutError:
            shim.process.kill()
            raise ShimUnreachable("the session's supervisor did not end") from None
        if self._places.sandbox.exists():
            raise ShimUnreachable("the session's supervisor ended before its sandbox")
