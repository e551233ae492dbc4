"""The shim's heart: one session's sandbox, interpreter, journal and status.

Its steps (start, restart, the end of an interpreter) come one after the other in one
worker, so that they never interleave; close cancels the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from sandcell_gateway.engines.agent_client import ProcessExited
from sandcell_gateway.engines.base import EngineError, Exit, SandboxGone
from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind
from sandcell_gateway.shim.active_time import ActiveTime
from sandcell_gateway.shim.broker import Broker
from sandcell_gateway.shim.channels import Channels
from sandcell_gateway.shim.commands import Commands, Place
from sandcell_gateway.shim.executions import Execution, Executions
from sandcell_gateway.shim.growth import Growth
from sandcell_gateway.shim.interpreter import Interpreter
from sandcell_gateway.shim.kernel_info import believed
from sandcell_gateway.shim.life import Life
from sandcell_gateway.shim.past import read_past
from sandcell_gateway.shim.pausing import Pausing
from sandcell_gateway.shim.request import Cause
from sandcell_gateway.shim.spec import ShimSpec
from sandcell_gateway.shim.steps import Steps
from sandcell_gateway.shim.supervisor import Supervisor
from sandcell_gateway.watched import Watched
from sandcell_wire import control, frames
from sandcell_wire.control import Close
from sandcell_wire.execution import KERNEL_DIED, KERNEL_RESTARTED
from sandcell_wire.messages import Message, make
from sandcell_wire.states import Event, Status

log = logging.getLogger(__name__)

JOBS = "jobs"
"""The client that detached executions belong to."""


class ShimSession:
    """Runs one session. `run` is its life; the other methods are called from its loop."""

    def __init__(self, spec: ShimSpec, journal: Journal) -> None:
        self.spec = spec
        self.journal = journal
        self.channels = Channels(journal)
        self.closed = asyncio.Event()
        """Set it to end the session."""
        self.ended = asyncio.Event()
        """Set when nothing of it runs any more."""
        self._broker = Broker(self, spec.interpreter)
        self.life = Life(lambda: self._broker.interpreter, self.channels.tell)
        self.growth = Growth(journal, lambda: self.executions)
        self._supervisor = Supervisor(spec, tell=self._broker.tell, interrupt=self.interrupt)
        self._interpreter: Interpreter | None = None
        self._kernel_info: dict[str, Any] | None = None
        self._fresh = False
        """Whether this shim started the interpreter, rather than adopted it."""
        self._loop: asyncio.AbstractEventLoop
        self._probe_answered: asyncio.Event = asyncio.Event()
        self._replied = Watched()
        """Told when an answer was recorded."""
        self._cells_run = False
        self.commands = Commands(self, Path(spec.state_dir))
        self._steps = Steps()
        self.pausing = Pausing(self.life, self._steps, self._supervisor, self._is_busy)
        self._watchers: set[asyncio.Future[None]] = set()

    # -- life --------------------------------------------------------------------------

    async def run(self) -> None:
        """Start or adopt the sandbox, then do what is commanded until `close`."""
        self._loop = asyncio.get_running_loop()
        self.journal.on_trouble = self._on_journal_trouble
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(self._work())
            await self.closed.wait()
            worker.cancel()
            for watcher in self._watchers:
                watcher.cancel()
        self._broker.ended(Cause("SessionClosed", "the session was closed"))
        await self.commands.aclose()
        await asyncio.gather(self._end(), self.channels.close(Close.FINAL, "session_expired"))
        self.life.move(Event.CLOSE, {"code": "closed", "text": "closed on request"})
        self.ended.set()

    async def _work(self) -> None:
        if self._supervisor.recorded:
            await self._adopt()
        else:
            self.commands.none_before()
            await self._start()
        await self._steps.run()

    async def restart(self, interpreter: str | None) -> None:
        """A fresh interpreter over the same files; returns when it is ready or has failed."""

        async def step() -> None:
            await self.pausing.thaw()
            self._broker.ended(Cause(KERNEL_RESTARTED, "the interpreter was restarted"))
            await self._stop_interpreter()
            # Under a new id clients see that it is another one.
            await self._start(interpreter or uuid.uuid4().hex)

        await self._steps.do(step)

    @property
    def time(self) -> ActiveTime:
        """In which it is not paused."""
        return self.pausing.time

    def execute(
        self, id: str, code: str, *, detached: bool, timeout: float | None = None
    ) -> Execution:
        """Run code for the gateway. The same `id` again is the same execution.

        A `detached` one is a job, that nobody waits for; else its client is called as itself.
        """
        found = self.executions.get(id)
        if found is not None:
            return found
        content: dict[str, Any] = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            # Its failure is nobody else's business: their cells go on.
            "stop_on_error": False,
        }
        client = JOBS if detached else id
        facts = {"detached": detached, "timeout": timeout}
        message = make(
            "shell",
            "execute_request",
            content,
            session=client,
            metadata={"sandcell": facts},
            msg_id=id,
        )
        self._broker.from_client(client, self.journal.newest, message)
        self.pausing.heard(message)
        found = self.executions.get(id)
        assert found is not None
        return found

    @property
    def executions(self) -> Executions:
        """The index of what ran."""
        return self._broker.executions

    async def wait(self, execution: Execution) -> None:
        """Until it has ended."""
        await self._replied.until(lambda: execution.ended is not None)

    def interrupt(self) -> None:
        """SIGINT to the interpreter's process group, as Jupyter does it.

        A signal from outside rather than ipykernel's own `interrupt_request`: its
        control thread may be waiting for code that holds the GIL.
        """
        if self._interpreter is not None:
            self.pausing.resume_soon()
            self._broker.interrupted()
            self._spawn(self._supervisor.signal(signal.SIGINT))

    # -- starting ----------------------------------------------------------------------

    async def _start(self, interpreter: str | None = None, note: str = "") -> None:
        """Sandbox if there is none, then an interpreter. Failure is a status, not an exception."""
        self._begin(interpreter or self.spec.interpreter)
        if note:
            self._broker.tell(note)
        try:
            await self._supervisor.start()
            self.life.moved.notify()
            await self._start_interpreter()
        except ProcessExited as error:
            self._failed(
                "start_failed", f"the interpreter {error.exit.describe()} while it started"
            )
        except TimeoutError:
            self._failed("start_failed", "the interpreter did not become ready in time")
        except (EngineError, SandboxGone, OSError) as error:
            self._failed("start_failed", str(error))

    def _begin(self, interpreter: str) -> None:
        self.life.begin()
        self.time.go()
        self._broker.starting(interpreter)
        self.life.announce()

    async def _start_interpreter(self) -> None:
        supervisor = self._supervisor
        interpreter = await Interpreter.start(
            self._broker.interpreter,
            supervisor.sandbox,
            supervisor.agent,
            supervisor.started,
            self._broker.from_kernel,
            self._refused,
        )
        self._fresh = True
        self._enter(interpreter)

    def _enter(self, interpreter: Interpreter) -> None:
        """The interpreter is there: open the gate and watch for its end."""
        self._interpreter = interpreter
        self._watch(interpreter)
        interpreter.send(self._broker.make_probe())
        self._broker.became_ready()
        self._cells_run = any(request.executes for request in self._broker.open.values())
        self.life.move(Event.READY, busy=self._is_busy())

    # -- adoption ----------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Take over what an earlier shim left: sandbox, interpreter and open requests."""
        # In one go: what clients send again meanwhile must be recognised.
        self._broker.resume(read_past(self.journal.scan()))
        self.pausing.was_paused = self._supervisor.was_frozen
        try:
            state = await self._supervisor.adopt()
            await self.commands.resume(self._supervisor)
            self._broker.starting(state.id)
            interpreter = await Interpreter.attach(
                state, self._supervisor.sandbox, self._broker.from_kernel, self._refused
            )
        except SandboxGone as gone:
            await self._lost(gone.exit, "while the session's supervisor was down")
            return
        except (EngineError, OSError, ValueError, KeyError, TypeError) as error:
            await self._lost(Exit(None, detail=f"could not be reached again ({error})"), "")
            return
        await self._resume_requests(interpreter)

    async def _resume_requests(self, interpreter: Interpreter) -> None:
        """Give the open requests their end as soon as the shell has answered a probe."""
        # Clients may be back already; what they sent meanwhile waits behind the probe.
        before = {msg_id for msg_id, request in self._broker.open.items() if request.sent}
        self._broker.tell(
            "sandcell: the session's supervisor was restarted; "
            "output of the moments before may be missing\n"
        )
        if self._broker.waits_for_input():
            self._broker.tell("sandcell: the cell waits for input; answer it, or interrupt\n")
        self._enter(interpreter)

        async def finish() -> None:
            await self._probe_answered.wait()
            self._broker.probed(before)

        self._spawn(finish())
        await self.pausing.again()

    async def _lost(self, how: Exit, when: str) -> None:
        code, text = await self._supervisor.explain(how)
        self._failed(code, f"{text} {when}".strip())
        await self._end()
        self.commands.none_before()

    # -- ending ------------------------------------------------------------------------

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def _watch(self, interpreter: Interpreter) -> None:
        async def watch() -> None:
            how = await self._supervisor.wait_interpreter()
            self._steps.soon(lambda: self._ended(interpreter, how))

        self._spawn(watch())

    async def _ended(self, interpreter: Interpreter, how: Exit) -> None:
        """The interpreter ended by itself."""
        if interpreter is not self._interpreter:
            return  # one that was stopped on purpose
        code, text = await self._supervisor.explain(how)
        self._failed(code, text, f"{text}; variables are gone, the next cell starts a fresh one")
        await self._stop_interpreter()

    async def _stop_interpreter(self) -> None:
        interpreter, self._interpreter = self._interpreter, None
        self._kernel_info = None
        self._probe_answered.clear()
        if interpreter is not None:
            interpreter.close()
            await self._supervisor.kill_interpreter()

    async def place(self) -> Place:
        """The sandbox, started again if it has ended, and not paused. Raises `EngineError`."""
        life, woken = self.life, False
        while not self._supervisor.is_there:
            if life.status is Status.ERROR:
                if woken:
                    raise EngineError(life.reason["text"] if life.reason else "it cannot be had")
                self.wake()
                woken = True
                await life.moved.until(lambda: life.status is not Status.ERROR)
            await life.moved.until(lambda: self._supervisor.is_there or life.status is Status.ERROR)
        await self.pausing.resume()
        return self._supervisor

    async def _end(self) -> None:
        if self._interpreter is not None:
            self._interpreter.close()
            self._interpreter = None
        await self._supervisor.end()

    def _failed(self, code: str, text: str, told: str = "") -> None:
        """Nothing runs any more: say so to the gateway, and `told` (or `text`) to open requests."""
        log.warning("session failed: %s: %s", code, text)
        # The reason first: a cell that comes right after the replies wants to know it.
        self.life.move(Event.FAIL, {"code": code, "text": text})
        name = "SessionFailed" if code == "start_failed" else KERNEL_DIED
        self._broker.ended(Cause(name, told or text))

    # -- Intake ------------------------------------------------------------------------

    def hello(self) -> list[control.Control]:
        """What a new channel is told first."""
        hello = control.Hello(
            type="hello",
            seq=self.journal.newest,
            oldest=self.journal.oldest,
            session=self.spec.session_id,
            interpreter=self._broker.interpreter,
            status=self.life.status.value,
            reason=self.life.reason,
            isolated=self._supervisor.engine.isolated,
            engine=self._supervisor.engine.name,
        )
        if self._kernel_info is None:
            return [hello]
        return [hello, control.KernelInfo(type="kernel_info", content=self._kernel_info)]

    def missed(self, client: str) -> control.Missed:
        """The executions of which nobody has seen the end, and the number before the first.

        What they have asked and nobody can answer any more, this client is asked.
        """
        self._broker.ask_again([client])
        found, left_out = self.executions.missed(client)
        return control.Missed(
            type="missed",
            after=found[0].first - 1 if found else self.journal.newest,
            msg_ids=[execution.id for execution in found],
            ends=[execution.last for execution in found],
            left_out=left_out,
        )

    def heard(self, client: str, seen: int) -> None:
        """A client says that it has everything up to this number."""
        self.executions.heard(client, min(seen, self.journal.newest))

    def from_client(self, client: str, seen: int, frame: bytes) -> str:
        """One frame of a client. Raises `MessageError` or `FrameError`."""
        message = frames.decode(frame)[1]
        msg_id = self._broker.from_client(client, seen, message)
        self.pausing.heard(message)
        return msg_id

    def open_requests(self, client: str) -> list[str]:
        """The ids of the client's requests that have not ended."""
        return self._broker.open_requests(client)

    # -- Ports of the broker -------------------------------------------------------------

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def record(self, message: Message, kind: Kind, owner: str) -> int:
        """Journal and deliver."""
        record = self.journal.append(message, kind, owner)
        self.growth.recorded()
        if kind is not Kind.REQUEST:
            self.channels.wake()
            if owner:
                asyncio.get_running_loop().call_soon(self._wake_waiters)
        return record.seq

    def _wake_waiters(self) -> None:
        self._replied.notify()
        self.growth.ended()

    def _on_journal_trouble(self, text: str | None) -> None:
        if not self._loop.is_closed():  # the journal's thread may find it as late as that
            self._loop.call_soon_threadsafe(self._journal_trouble, text)

    def _journal_trouble(self, text: str | None) -> None:
        """The disk refuses the journal, or (None) takes it again: tell those who run cells."""
        told = "the session's journal is written again"
        if text is not None:
            told = f"{text}; the cell goes on, but what it prints may be missing after a reconnect"
        log.warning("%s", told)
        self._broker.tell(f"sandcell: {told}\n")

    def to_kernel(self, message: Message) -> None:
        """Send on its channel; a dead interpreter's watcher will tell."""
        if self._interpreter is not None:
            self._interpreter.send(message)

    def probed(self, reply: Message) -> None:
        """Any answer shows that the shell lives; only a fresh interpreter's is believed."""
        if self._fresh:
            with contextlib.suppress(ValueError):
                content = believed(reply.content_dict())
                self._kernel_info = content
                self.channels.tell(control.KernelInfo(type="kernel_info", content=content))
        self._probe_answered.set()

    def limit(self, msg_id: str, seconds: float) -> None:
        """Tell the broker when it is over."""

        async def expire() -> None:
            await self.time.sleep(seconds)
            self._broker.expired(msg_id)

        self._spawn(expire())

    def wake(self) -> None:
        """An execute came while no interpreter ran."""
        note = ""
        reason = self.life.reason
        if reason is not None and reason["code"] != "start_failed":
            text = reason["text"]
            note = f"sandcell: {text}; starting a fresh interpreter, variables are gone\n"
        self._steps.soon(lambda: self._start(uuid.uuid4().hex, note))

    def activity(self, active: bool) -> None:
        """The first execution opened or the last one closed."""
        self._cells_run = active
        self.busy_changed()

    def busy_changed(self) -> None:
        """A cell or a command was the first to run, or the last to end."""
        self.life.busy(self._is_busy())

    def _is_busy(self) -> bool:
        return self._cells_run or self.commands.are_running

    def _refused(self, what: str) -> None:
        """A message of the interpreter that cannot be passed on: the user must know."""
        self.drop(what)
        self._broker.tell(f"sandcell: {what}\n")

    def notify(self, client: str, text: str) -> None:
        """Tell one client's user, if it is connected."""
        self.channels.tell(control.Notice(type="notice", text=text), client)

    def present(self) -> frozenset[str]:
        """The clients that are connected."""
        return self.channels.clients

    def left(self) -> None:
        """A client's channel has ended: what its cells ask, the others are asked."""
        self._broker.ask_again(self.channels.clients)

    def drop(self, what: str) -> None:
        """A refused message, for the log."""
        log.info("message refused: %s", what[:500])
