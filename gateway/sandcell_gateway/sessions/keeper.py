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
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from sandcell_gateway.clock import now
from sandcell_gateway.errors import BadRequest, GatewayError, NameTaken, ShimUnreachable
from sandcell_gateway.sessions.control import UNREACHABLE, ControlLink, StatusReport, open_control
from sandcell_gateway.sessions.ending import end_sandbox
from sandcell_gateway.sessions.events import EventLog
from sandcell_gateway.sessions.places import Places
from sandcell_gateway.sessions.processes import ShimProcess, same_boot
from sandcell_gateway.sessions.use import RETURN, PutOff, Use, end_reason, expires_at
from sandcell_gateway.sessions.view import follow, model_of, row_reason, stored_status
from sandcell_gateway.store.database import to_the_end
from sandcell_gateway.store.sessions import Duplicate, SessionStore
from sandcell_gateway.store.tables import SessionRow
from sandcell_gateway.watched import Watched
from sandcell_wire.control import ControlError
from sandcell_wire.models import MAX_METADATA, Reason, SessionModel, SessionUpdate
from sandcell_wire.states import (
    FINAL,
    Event,
    IllegalTransition,
    JournalState,
    Status,
    next_status,
)

RUNNING = "running"
CLOSED = "closed"

MAX_CRASHES = 3
"""Ends of a shim within `CRASH_WINDOW` after which it is not started again."""
CRASH_WINDOW = 60.0
"""Seconds."""
CLOSE_TIMEOUT = 30.0
"""Seconds for a shim to end its sandbox and itself. It may have just been started."""
KILL_TIMEOUT = 10.0
"""Seconds for a killed shim to be gone."""
LINK_TIMEOUT = 60.0
"""Seconds without a line after which a shim counts as hung and is ended."""
FIRST_RETRY = 0.1
LAST_RETRY = 30.0
"""Seconds before a failed step is tried again; doubled each time."""

_log = structlog.get_logger(__name__)


@dataclass
class Shim:
    """The session's shim while it runs, and the line to it while it is open."""

    process: ShimProcess
    link: ControlLink | None = None


class Keeper:
    """Keeps one session. `run` is its life; the other methods may be called meanwhile."""

    def __init__(
        self,
        row: SessionRow,
        store: SessionStore,
        places: Places,
        *,
        recovered: bool,
        orphan_timeout: float,
    ) -> None:
        self.row = row
        self.status = Status(row.status)
        self.reason = row_reason(row)
        self.interpreter = row.interpreter
        self.journal = JournalState.UNPROVEN
        """Set by whoever compares the journal with its proofs."""
        self.changed = Watched()
        self.events = EventLog(row.id, self.status, self.reason)
        self._store = store
        self._places = places
        # In use when the last gateway ended: as if the client had left just now.
        self._use = Use(row.unused_since or now())
        self._put_off = PutOff(now(), RETURN)
        if recovered and row.unused_since is None:
            self._use.left = now()
        self._orphan_timeout = orphan_timeout
        self._shim: Shim | None = None
        self._found = not recovered
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)
        self._wake = asyncio.Event()
        self._updating = asyncio.Lock()
        self._log = _log.bind(session=row.id)

    # What others see and ask -----------------------------------------------------

    @property
    def model(self) -> SessionModel:
        """The session as the API shows it."""
        shown = model_of(self.row, self.status, self.reason, self.interpreter, self.closes_at)
        return shown.model_copy(update={"journal": self.journal})

    @property
    def closes_at(self) -> datetime | None:
        """When it is closed if nobody attaches before."""
        if self.row.closes_at is not None:
            return self._put_off.due(self.row.closes_at, self._use)
        return expires_at(self.row, self._use, self._orphan_timeout)

    @property
    def final(self) -> bool:
        """Nothing can happen to it any more."""
        return self.status in FINAL

    @property
    def shim(self) -> Shim | None:
        """The shim while it runs; another object for another process or gateway."""
        return self._shim

    @property
    def socket(self) -> Path:
        """Where the shim listens."""
        return self._places.socket

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
        # Before it was looked for, a shim of an earlier gateway may be there.
        idle = self._found and self._shim is None
        return self.final or (idle and self.status is Status.ERROR)

    @property
    def reachable(self) -> bool:
        """Whether a channel can be opened to the shim's socket."""
        return self._shim is not None and not self._shim.process.ended.is_set()

    def attach(self, client: str) -> None:
        """A channel of this client is opened."""
        self._use.channel(1, now(), client)
        self._wake.set()

    def detach(self, client: str) -> None:
        """A channel of this client has ended."""
        self._use.channel(-1, now(), client)
        self._wake.set()

    def attached(self, *, but: str | None = None) -> bool:
        """Whether anybody has a channel, or anybody but this client."""
        return self._use.attached(but=but)

    async def close(self) -> None:
        """Have the session closed, whoever is attached."""
        if self.row.desired != CLOSED and not self.final:
            await self._write(closes_at=now(), desired=CLOSED)
        self._wake.set()

    async def put_off(self, grace: float, client: str | None = None) -> None:
        """Have it closed after `grace` seconds in which nobody, or nobody but this, attached."""
        if self.row.desired == CLOSED or self.final:
            return
        self._put_off = PutOff(now(), timedelta(seconds=grace), client)
        await self._write(closes_at=self._put_off.asked + self._put_off.grace)
        self._wake.set()

    async def withdraw(self) -> None:
        """Forget a close that was put off, unless it has begun."""
        if self.row.desired != CLOSED and not self.final and self.row.closes_at is not None:
            await self._write(closes_at=None)
        self._wake.set()

    async def update(self, wanted: SessionUpdate) -> None:
        """Change name and labels. Raises `NameTaken`, or `BadRequest` for too many labels."""
        async with self._updating:  # what is merged is read before it is written
            labels = wanted.merged(self.row.labels)
            if len(labels) > MAX_METADATA:
                raise BadRequest(
                    f"metadata: at most {MAX_METADATA} labels, got {len(labels)}",
                    "take some away: set them to null",
                )
            name = wanted.name if "name" in wanted.model_fields_set else self.row.name
            try:
                await self._write(name=name, labels=labels)
            except Duplicate as error:
                raise NameTaken(str(name)) from error
        self._wake.set()  # one with a name does not expire

    async def request(self, op: str, args: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Pass a request to the shim; its answer. Raises what `ControlLink.request` raises."""
        await self.changed.until(lambda: self.link is not None or self.given_up, timeout)
        link = self.link
        if link is None:
            raise ShimUnreachable("the session's supervisor is not running now", "try again")
        return await link.request(op, args, timeout=timeout)

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
        due = await self._end_in_time()
        if self.row.desired == CLOSED:
            await self._close()
            return None
        if self._shim is None and self.status is not Status.ERROR:
            await self._start(group)
        return None if due is None else max(0.0, (due - now()).total_seconds())

    async def _end_in_time(self) -> datetime | None:
        """Begin the end, or withdraw it, when it is due; when the next look is."""
        due = self.closes_at
        if due is None or self.row.desired == CLOSED:
            return None
        if self.row.closes_at not in (None, due):
            await self._write(closes_at=due)
        if due > now():
            return due
        look = self._put_off.withdrawn(due, self._use) if self.row.closes_at else None
        if look is None:
            await self._write(desired=CLOSED)
        elif look <= now():
            self._log.info("close withdrawn: a client is attached")
            await self.withdraw()
        return look

    async def _write(self, **values: Any) -> None:
        row = await to_the_end(self._store.change(self.row.id, updated_at=now(), **values))
        if row is not None:
            self.row = row
        self.changed.notify()

    async def _move(self, event: Event, reason: Reason | None) -> None:
        self.status, self.reason = next_status(self.status, event), reason
        self.events.note(self.status, reason)
        self._use.execution(self.status is Status.ACTIVE, now())
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
            unused_since=self._use.unused_since,
        )

    @property
    def _unsaved(self) -> bool:
        row = self.row
        stored = (row.status, row_reason(row), row.interpreter, row.unused_since)
        return stored != (
            stored_status(self.status).value,
            self.reason,
            self.interpreter,
            self._use.unused_since,
        )

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
        self.changed.notify()

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
        self.events.note(self.status, self.reason)
        self.interpreter = report.interpreter or self.interpreter
        self._use.execution(self.status is Status.ACTIVE, now())
        if self._unsaved:
            self._wake.set()
        self.changed.notify()

    # The end ---------------------------------------------------------------------------

    async def _close(self) -> None:
        if self._shim is not None:
            await self._end_shim(self._shim)
        # None is started to do it: one that fails would keep the session open for ever.
        await end_sandbox(self._places)
        await asyncio.to_thread(self._places.remove)
        reason = end_reason(self.row, self._orphan_timeout)
        await self._move(Event.CLOSE, reason)
        self._log.info("session closed", code=reason.code)

    async def _end_shim(self, shim: Shim) -> None:
        """It ends its sandbox and itself, or is killed. Raises `TimeoutError` if that fails."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._ask_to_close(shim)
                await shim.process.ended.wait()
        except TimeoutError:
            self._log.error("the shim does not close, ending it")
            shim.process.kill()
            async with asyncio.timeout(KILL_TIMEOUT):
                await shim.process.ended.wait()

    async def _ask_to_close(self, shim: Shim) -> None:
        ended = shim.process.ended
        await self.changed.until(lambda: bool(shim.link) or ended.is_set(), CLOSE_TIMEOUT)
        if shim.link is None or ended.is_set():
            return
        try:
            await shim.link.request("close", timeout=CLOSE_TIMEOUT)
        except GatewayError as error:
            # It may have ended before its answer was read.
            self._log.debug("no answer to close", error=str(error))
