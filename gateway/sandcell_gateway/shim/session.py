"""The shim's heart: one session's sandbox, interpreter, journal and status.

Commands (start, restart, the end of an interpreter) run one after the other in one
worker, so that they never interleave; close cancels the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandcell_gateway.engines import registry
from sandcell_gateway.engines.agent_client import AgentClient, ProcessExited
from sandcell_gateway.engines.base import (
    EngineError,
    Exit,
    Sandbox,
    SandboxGone,
    SandboxSpec,
)
from sandcell_gateway.environment import make_environment
from sandcell_gateway.images import Image
from sandcell_gateway.shim.broker import Broker
from sandcell_gateway.shim.channels import CLOSE_FINAL, Channels
from sandcell_gateway.shim.interpreter import Interpreter, InterpreterState
from sandcell_gateway.shim.journal import Journal, Kind
from sandcell_gateway.shim.request import Cause
from sandcell_gateway.shim.spec import SANDBOX_FILE, ShimSpec
from sandcell_wire import control, frames
from sandcell_wire.messages import Message
from sandcell_wire.states import Event, Status, next_status

log = logging.getLogger(__name__)

Reason = dict[str, str]


class ShimSession:
    """Runs one session. `run` is its life; the other methods are called from its loop."""

    def __init__(self, spec: ShimSpec, journal: Journal) -> None:
        self.spec = spec
        self.journal = journal
        self.channels = Channels(journal)
        self.engine = registry.load(spec.engine)
        self.status = Status.INITIALIZING
        self.reason: Reason | None = None
        self.closed = asyncio.Event()
        """Set it to end the session."""
        self.ended = asyncio.Event()
        """Set when nothing of it runs any more."""
        self.listeners: set[Callable[[dict[str, Any], bool], None]] = set()
        """Called with each status, and whether it must be told at once."""
        self._broker = Broker(self, spec.interpreter)
        self._sandbox: Sandbox | None = None
        self._agent: AgentClient | None = None
        self._interpreter: Interpreter | None = None
        self._kernel_info: dict[str, Any] | None = None
        self._probe_answered: asyncio.Event = asyncio.Event()
        self._commands: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._watchers: set[asyncio.Task[None]] = set()
        self._file = Path(spec.state_dir) / SANDBOX_FILE

    # -- life --------------------------------------------------------------------------

    async def run(self) -> None:
        """Start or adopt the sandbox, then do what is commanded until `close`."""
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(self._work())
            await self.closed.wait()
            worker.cancel()
            for watcher in self._watchers:
                watcher.cancel()
        self._broker.ended(Cause("SessionClosed", "the session was closed"))
        await asyncio.gather(
            self._end_sandbox(), self.channels.close(CLOSE_FINAL, "session_expired")
        )
        self._move(Event.CLOSE, {"code": "closed", "text": "closed on request"})
        self.ended.set()

    async def _work(self) -> None:
        await (self._adopt() if self._file.exists() else self._start())
        while True:
            command = await self._commands.get()
            await command()

    async def restart(self, interpreter: str | None) -> None:
        """A fresh interpreter over the same files; returns when it is ready or has failed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def command() -> None:
            try:
                self._broker.ended(Cause("KernelRestarted", "the interpreter was restarted"))
                await self._stop_interpreter()
                await self._start(interpreter)
            finally:
                if not done.done():
                    done.set_result(None)

        self._commands.put_nowait(command)
        await done

    def interrupt(self) -> None:
        """SIGINT to the interpreter's process group, as Jupyter does it.

        A signal from outside rather than ipykernel's own `interrupt_request`: its
        control thread may be waiting for code that holds the GIL.
        """
        if self._interpreter is not None:
            self._spawn(self._signal(self._interpreter.state.pid, signal.SIGINT))

    async def _signal(self, pid: int, number: signal.Signals) -> None:
        if self._agent is not None:
            # One that has ended meanwhile needs no interrupt; its watcher tells of it.
            with contextlib.suppress(EngineError, SandboxGone):
                await self._agent.signal(pid, number, group=True)

    # -- starting ----------------------------------------------------------------------

    async def _start(self, interpreter: str | None = None, note: str = "") -> None:
        """Sandbox if there is none, then an interpreter. Failure is a status, not an exception."""
        self._begin(interpreter or self.spec.interpreter)
        if note:
            self._broker.tell(note)
        try:
            await self._start_sandbox()
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
        if self.status is not Status.INITIALIZING:
            self.status = next_status(self.status, Event.RESTART)
        self.reason = None
        self._broker.starting(interpreter)
        self._announce()

    def _sandbox_spec(self) -> SandboxSpec:
        state, sockets = Path(self.spec.state_dir), Path(self.spec.socket_dir)
        return SandboxSpec(
            session_id=self.spec.session_id,
            image=Image.of_prefix(Path(self.spec.image)),
            workspace=state / "workspace",
            environment=state / "env",
            sockets=sockets / "k",
            state=state / "engine",
            env=self.spec.env,
            uid=self.spec.uid,
        )

    async def _start_sandbox(self) -> None:
        if self._sandbox is not None:
            return
        spec = self._sandbox_spec()
        await asyncio.to_thread(make_environment, spec.image, spec.environment, uid=spec.uid)
        sandbox = await self.engine.create(spec, lambda state: self._store(sandbox=state))
        self._store(sandbox=sandbox.state)
        self._sandbox = sandbox
        self._agent = await AgentClient.open(sandbox)

    async def _start_interpreter(self) -> None:
        assert self._sandbox is not None
        assert self._agent is not None
        interpreter = await Interpreter.start(
            self._broker.interpreter,
            self._sandbox,
            self._agent,
            lambda state: self._store(interpreter=asdict(state)),
            self._from_kernel,
            self.drop,
            self._sandbox_env(),
        )
        self._enter(interpreter)

    def _sandbox_env(self) -> dict[str, str]:
        assert self._sandbox is not None
        return dict(self._sandbox.environ)

    def _enter(self, interpreter: Interpreter) -> None:
        """The interpreter is there: open the gate and watch for its end."""
        self._interpreter = interpreter
        self._watch(interpreter)
        interpreter.send(self._broker.make_probe())
        self._broker.became_ready()
        self._move(Event.READY)
        if any(request.executes for request in self._broker.open.values()):
            self._move(Event.BUSY)

    # -- adoption ----------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Take over what an earlier shim left: sandbox, interpreter and open requests."""
        stored = json.loads(self._file.read_text())
        self._broker.restore(
            (record.kind, record.owner, frames.decode(record.frame)[1])
            for record in self.journal.scan()
        )
        try:
            self._sandbox = await self.engine.adopt(self._sandbox_spec(), stored["sandbox"])
            self._agent = await AgentClient.open(self._sandbox)
            state = InterpreterState(**stored["interpreter"])
            self._broker.starting(state.id)
            await self._must_run(state.pid)
            interpreter = await Interpreter.attach(
                state, self._sandbox, self._from_kernel, self.drop
            )
        except SandboxGone as gone:
            await self._lost(gone.exit, "while the session's supervisor was down")
            return
        except (EngineError, OSError, KeyError, TypeError, TimeoutError) as error:
            await self._lost(Exit(None, detail=f"could not be reached again ({error})"), "")
            return
        await self._resume_requests(interpreter)

    async def _must_run(self, pid: int) -> None:
        """Raises `SandboxGone` with the interpreter's exit when it has ended."""
        assert self._agent is not None
        for process in await self._agent.processes():
            if process.pid == pid and process.exit is not None:
                raise SandboxGone(process.exit)
            if process.pid == pid:
                return
        raise SandboxGone(Exit(None))

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

    async def _lost(self, how: Exit, when: str) -> None:
        self._failed(_code(how), f"the interpreter {how.describe()} {when}".strip())
        await self._end_sandbox()

    # -- ending ------------------------------------------------------------------------

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def _watch(self, interpreter: Interpreter) -> None:
        async def watch() -> None:
            assert self._agent is not None
            try:
                how = await self._agent.wait_exit(interpreter.state.pid)
            except SandboxGone as gone:
                how = gone.exit
            self._commands.put_nowait(lambda: self._ended(interpreter, how))

        self._spawn(watch())

    async def _ended(self, interpreter: Interpreter, how: Exit) -> None:
        """The interpreter ended by itself."""
        if interpreter is not self._interpreter:
            return  # one that was stopped on purpose
        text = f"the interpreter {how.describe()}"
        self._failed(
            _code(how), text, f"{text}; variables are gone, the next cell starts a fresh one"
        )
        await self._stop_interpreter()

    async def _stop_interpreter(self) -> None:
        interpreter, self._interpreter = self._interpreter, None
        self._kernel_info = None
        self._probe_answered.clear()
        if interpreter is not None:
            interpreter.close()
            await self._kill_process(interpreter.state.pid)

    async def _kill_process(self, pid: int) -> None:
        """End the process, and the whole sandbox when its agent does not answer."""
        assert self._agent is not None
        try:
            async with asyncio.timeout(10):
                for process in await self._agent.processes():
                    if process.pid == pid and process.exit is None:
                        await self._agent.signal(pid, signal.SIGKILL, group=True)
                        await self._agent.wait_exit(pid)
                await self._agent.reap(pid)
        except (EngineError, SandboxGone, OSError, TimeoutError):
            await self._end_sandbox()

    async def _end_sandbox(self) -> None:
        if self._interpreter is not None:
            self._interpreter.close()
            self._interpreter = None
        if self._agent is not None:
            await self._agent.aclose()
            self._agent = None
        sandbox, self._sandbox = self._sandbox or await self._half_made(), None
        if sandbox is not None:
            await sandbox.kill()
            await sandbox.aclose()
        self._file.unlink(missing_ok=True)

    async def _half_made(self) -> Sandbox | None:
        """A sandbox whose making was cancelled after it had been reported."""
        if not self._file.exists():
            return None
        with contextlib.suppress(SandboxGone, EngineError, OSError, KeyError):
            stored = json.loads(self._file.read_text())
            return await self.engine.adopt(self._sandbox_spec(), stored["sandbox"])
        return None

    def _failed(self, code: str, text: str, told: str = "") -> None:
        """Nothing runs any more: say so to the gateway, and `told` (or `text`) to open requests."""
        log.warning("session failed: %s: %s", code, text)
        # The reason first: a cell that comes right after the replies wants to know it.
        self._move(Event.FAIL, {"code": code, "text": text})
        name = "SessionFailed" if code == "start_failed" else "KernelDied"
        self._broker.ended(Cause(name, told or text))

    def _store(self, **parts: dict[str, Any]) -> None:
        stored: dict[str, Any] = {}
        if self._file.exists():
            stored = json.loads(self._file.read_text())
        aside = self._file.with_suffix(".new")
        aside.touch(mode=0o600)
        aside.write_text(json.dumps({**stored, **parts}))
        aside.rename(self._file)

    # -- status ------------------------------------------------------------------------

    def _move(self, event: Event, reason: Reason | None = None) -> None:
        self.status = next_status(self.status, event)
        self.reason = reason
        self._announce()

    def event(self) -> control.StatusChanged:
        """The status as a control message."""
        return control.StatusChanged(
            type="status",
            status=self.status.value,
            reason=self.reason,
            interpreter=self._broker.interpreter,
        )

    def _announce(self) -> None:
        """Tell clients and the gateway of a step in the session's life."""
        self.channels.tell(self.event())
        self._report(prompt=True)

    def _report(self, *, prompt: bool) -> None:
        for listener in list(self.listeners):
            listener({**self.event(), "event": "status"}, prompt)

    # -- Intake ------------------------------------------------------------------------

    def hello(self) -> list[control.Control]:
        """What a new channel is told first."""
        hello = control.Hello(
            type="hello",
            seq=self.journal.newest,
            oldest=self.journal.oldest,
            session=self.spec.session_id,
            interpreter=self._broker.interpreter,
            status=self.status.value,
            reason=self.reason,
            isolated=self.engine.isolated,
            engine=self.engine.name,
        )
        if self._kernel_info is None:
            return [hello]
        return [hello, control.KernelInfo(type="kernel_info", content=self._kernel_info)]

    def from_client(self, client: str, seen: int, frame: bytes) -> str:
        """One frame of a client. Raises `MessageError` or `FrameError`."""
        return self._broker.from_client(client, seen, frames.decode(frame)[1])

    # -- Ports of the broker -------------------------------------------------------------

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def record(self, message: Message, kind: Kind, owner: str) -> int:
        """Journal and deliver."""
        record = self.journal.append(message, kind, owner)
        if kind is not Kind.REQUEST:
            self.channels.wake()
        return record.seq

    def to_kernel(self, message: Message) -> None:
        """Send on its channel; a dead interpreter's watcher will tell."""
        if self._interpreter is not None:
            self._interpreter.send(message)

    def _from_kernel(self, message: Message) -> None:
        if message.channel == "shell" and b"sandcell-probe-" in message.parent_header:
            self._probed(message)
        self._broker.from_kernel(message)

    def _probed(self, message: Message) -> None:
        with contextlib.suppress(ValueError):
            content = message.content_dict()
            self._kernel_info = content
            self.channels.tell(control.KernelInfo(type="kernel_info", content=content))
        self._probe_answered.set()

    def wake(self) -> None:
        """An execute came while no interpreter ran."""
        note = ""
        if self.reason is not None and self.reason["code"] != "start_failed":
            text = self.reason["text"]
            note = f"sandcell: {text}; starting a fresh interpreter, variables are gone\n"
        self._commands.put_nowait(lambda: self._start(uuid.uuid4().hex, note))

    def activity(self, active: bool) -> None:
        """The first execution opened or the last one closed."""
        event = Event.BUSY if active else Event.DONE
        moves = {(Status.IDLE, Event.BUSY), (Status.ACTIVE, Event.DONE)}
        if (self.status, event) in moves:
            # Clients see busy and idle in the messages themselves.
            self.status = next_status(self.status, event)
            self._report(prompt=False)

    def drop(self, what: str) -> None:
        """A refused message, for the log."""
        log.info("message refused: %s", what[:500])


def _code(how: Exit) -> str:
    if how.signal is not None:
        return "signal"
    return "exit" if how.code is not None else "host_lost"
