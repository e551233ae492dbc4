"""The first process of a sandbox: starts and watches its processes for the shim.

    python -I -S agent.py '{"socket": PATH, "start_fd": N, ...}'

Standard library only, so that it starts fast and works in any image. It gives
up what rights it has before anything of the session runs, listens, says so on
`start_fd`, and waits there for leave to go on; when that never comes, because
its maker died, it ends itself and the sandbox with it.

It talks JSON lines on a Unix socket (`_OPERATIONS`); its events go to every
connection. It has no loops that wait for anybody: a reader that does not read
is dropped, output beyond `LOG_BYTES` is swallowed.
"""

# pathlib would be a third of the start:

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import struct
import sys

TYPE_CHECKING = False  # importing typing takes time, too
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from sandcell_gateway.inside import rights
    from sandcell_gateway.inside.agent_requests import Lines, Order, RequestError, integer, parse
    from sandcell_gateway.inside.command_streams import Input, Output

    Json = dict[str, Any]
    Reply = Callable[[Json], None]
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import rights
    from agent_requests import Lines, Order, RequestError, integer, parse
    from command_streams import Input, Output

    del sys.path[0]

MAX_PENDING = 8 << 20
"""Bytes waiting for one reader before it is dropped."""
MAX_CONNECTIONS = 16
BACKLOG = 128
"""More than MAX_CONNECTIONS, so that those from inside, which are refused, block nobody."""
MAX_PROCESSES = 1024
"""Processes remembered, running or ended; `reap` forgets one."""
LOG_BYTES = 16 << 20
"""Output of all processes that is kept; the log lies outside, where nothing else bounds it."""
READY_FD = "SANDCELL_READY_FD"
READ_SIZE = 1 << 16


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


class Connection:
    """One client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.lines, self.pending = sock, Lines(), bytearray()


class Process:
    """One process we started."""

    def __init__(self, pid: int, name: str | None, streams: Streams) -> None:
        self.pid, self.name, self.streams = pid, name, streams
        self.ready = False
        self.exit: Json | None = None

    def describe(self) -> Json:
        """As `list` shows it."""
        known = {"pid": self.pid, "name": self.name, "ready": self.ready, "exit": self.exit}
        return {**known, "running": self.exit is None}


class Streams:
    """Pipes of one process: the child's ends by number, and ours, of those it was given."""

    def __init__(self, order: Order) -> None:
        self.theirs: dict[int, int] = {}
        self.outputs: dict[str, Output] = {}
        self.input: Input | None = None
        try:
            if order.input:
                self.theirs[0], ours = os.pipe()
                self.input = Input(ours)
            for number, name in ((1, "stdout"), (2, "stderr")) if order.streams else ():
                ours, self.theirs[number] = os.pipe()
                self.outputs[name] = Output(ours)
        except OSError:
            self.close()
            raise

    def started(self) -> None:
        """The child has its ends."""
        _close(*self.theirs.values())
        self.theirs.clear()

    def close(self) -> None:
        """There is no child."""
        self.started()
        _close(*(output.descriptor for output in self.outputs.values()))
        if self.input is not None:
            self.input.close()


def _nothing(number: int, frame: object) -> None:
    """A handler, so that the signal wakes the loop."""


class Agent:
    """One selector loop over listener, connections, children and their output."""

    def __init__(self, config: Json) -> None:
        self._limits = config.get("limits", {})
        self._outside_only = config.get("outside_only", False)
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._processes: dict[int, Process] = {}
        self._log_left = LOG_BYTES
        self._null = os.open("/dev/null", os.O_RDONLY)
        output, self._output = os.pipe()
        os.set_blocking(output, False)
        self._watch(output, lambda: self._copy_output(output))
        wake, woken = os.pipe()
        for descriptor in (wake, woken):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, _nothing)
        # As PID 1 we get from inside only signals that have a handler, and Python has one here.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self._watch(wake, lambda: self._children_changed(wake))
        self._listener = self._listen(config["socket"])

    def _listen(self, path: str) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._watch(listener, self._accept)
        return listener

    def _watch(
        self,
        source: int | socket.socket,
        callback: Callable[[], None],
        events: int = selectors.EVENT_READ,
    ) -> None:
        self._selector.register(source, events, callback)

    def run(self) -> NoReturn:
        """For ever."""
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            peer = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            # Who is outside our pid namespace has no number in it: SO_PEERCRED says 0.
            if len(self._connections) >= MAX_CONNECTIONS or (self._outside_only and peer[0] != 0):
                sock.close()
                return
            sock.setblocking(False)
            connection = Connection(sock)
            self._connections[sock.fileno()] = connection
            self._watch(sock, lambda: self._serve(connection))

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection.sock.fileno(), None) is not None:
            self._selector.unregister(connection.sock)
            connection.sock.close()

    def _serve(self, connection: Connection) -> None:
        """Write what waits, read what came."""
        try:
            if connection.pending:
                self._flush(connection)
            data = connection.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            for line in connection.lines.feed(data):
                self._answer(line, connection)
        except RequestError as error:
            self._send(connection, {"id": None, "ok": False, "error": str(error)})
            self._drop(connection)

    def _send(self, connection: Connection, message: Json) -> None:
        if connection.sock.fileno() not in self._connections:
            return
        connection.pending += json.dumps(message).encode() + b"\n"
        if len(connection.pending) > MAX_PENDING:
            self._drop(connection)
            return
        with contextlib.suppress(OSError):  # one that is gone is noticed on reading
            self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        with contextlib.suppress(BlockingIOError):
            sent = connection.sock.send(connection.pending)
            del connection.pending[:sent]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.pending else 0)
        self._selector.modify(connection.sock, events, lambda: self._serve(connection))

    def _tell(self, event: Json) -> None:
        for connection in list(self._connections.values()):
            self._send(connection, event)

    def _answer(self, line: bytes, connection: Connection) -> None:
        number: Any = None

        def reply(result: Json) -> None:
            self._send(connection, {"id": number, "ok": True, **result})

        try:
            request = parse(line)
            number, op = request.get("id"), str(request.get("op"))
            if op in _PATIENT:
                _PATIENT[op](self, request, reply)
            else:
                reply(_OPERATIONS.get(op, Agent.unknown)(self, request))
        except RequestError as error:
            self._send(connection, {"id": number, "ok": False, "error": str(error)})

    def unknown(self, request: Json) -> Json:
        """For any other."""
        raise RequestError(f"unknown op; known are {', '.join([*_OPERATIONS, *_PATIENT])}")

    def spawn(self, request: Json) -> Json:
        """From argv, env, cwd, log, ready, name, streams, input: pid."""
        order = Order(request)
        if len(self._processes) >= MAX_PROCESSES:
            raise RequestError(f"{MAX_PROCESSES} processes are remembered; reap some")
        try:
            streams = Streams(order)
        except OSError as error:
            raise RequestError(f"cannot start a process: {error.strerror}") from None
        try:
            pid, read_end = self._fork(order, streams)
        except RequestError:
            streams.close()
            raise
        streams.started()
        self._processes[pid] = Process(pid, order.name, streams)
        if order.ready:
            os.set_blocking(read_end, False)
            self._watch(read_end, lambda: self._became_ready(pid, read_end))
        return {"pid": pid}

    def _fork(self, order: Order, streams: Streams) -> tuple[int, int]:
        """The child's pid, and what says when it is ready. Raises `RequestError`."""
        ends = [-1, -1, -1, -1]
        try:
            ends[:2] = os.pipe() if order.ready else (-1, -1)
            ends[2:] = os.pipe()
            read_end, ready, failed, failure = ends
            pid = os.fork()
            if pid == 0:
                self._become_child(order, streams, ready, failure)
        except OSError as error:
            _close(*ends)
            raise RequestError(f"cannot start a process: {error.strerror}") from None
        _close(ready, failure)
        with os.fdopen(failed, "rb") as pipe:
            reason = pipe.read()  # ends when the child has become the program
        if reason:
            _close(read_end)
            os.waitpid(pid, 0)
            raise RequestError(reason.decode("utf-8", "replace"))
        return pid, read_end

    def _become_child(self, order: Order, streams: Streams, ready: int, failure: int) -> NoReturn:
        """Between fork and exec."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            output = self._output
            if order.log is not None:
                output = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            env = dict(order.env)
            if order.ready:
                os.set_inheritable(ready, True)
                env[READY_FD] = str(ready)
            rights.limit(self._limits)
            os.chdir(order.cwd)
            usual = {0: self._null, 1: output, 2: output}
            for target, source in {**usual, **streams.theirs}.items():
                os.dup2(source, target)
            os.execvpe(order.argv[0], order.argv, env)
        except BaseException as error:
            reason = getattr(error, "strerror", None) or str(error)
            text = f"cannot run {order.argv[0]!r} in {order.cwd!r}: {reason}"
            os.write(failure, text.encode("utf-8", "replace")[:1000])
        finally:
            os._exit(127)

    def signal(self, request: Json) -> Json:
        """From pid, signal, group: nothing. With group also what an ended process left in it."""
        process, number = self._known(request), integer(request, "signal")
        group = request.get("group", False) is True
        if process.exit is not None and not group:
            raise RequestError(f"process {process.pid} has ended")
        try:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(process.pid, number)
        except (OSError, OverflowError) as error:
            raise RequestError(f"signal {number}: {error}") from None
        return {}

    def list(self, request: Json) -> Json:
        """From nothing: processes."""
        return {"processes": [process.describe() for process in self._processes.values()]}

    def reap(self, request: Json) -> Json:
        """From pid: nothing. Forgets an ended process."""
        process = self._known(request)
        if process.exit is None:
            raise RequestError(f"process {process.pid} still runs")
        del self._processes[process.pid]
        if process.streams.input is not None:
            self._unwatch(process.streams.input)
            process.streams.input.close()
        for output in process.streams.outputs.values():
            self._unwatch(output)
            # What it left running goes on, and must not wait for a reader.
            if not output.has_ended():
                self._discard(output)
        return {}

    def _discard(self, output: Output) -> None:
        def discard() -> None:
            output.discard()
            if output.has_ended():
                self._selector.unregister(output.descriptor)

        self._watch(output.descriptor, discard)

    def read(self, request: Json, reply: Reply) -> None:
        """From pid, stream, at, wait: at, data, ended. With wait, when there is something."""
        output = self._known(request).streams.outputs.get(str(request.get("stream")))
        if output is None:
            raise RequestError("stream must be stdout or stderr, of a process started with streams")
        self._unwatch(output)
        try:
            is_there = output.fetch(integer(request, "at"))
        except ValueError as error:
            raise RequestError(str(error)) from None
        if is_there or request.get("wait", False) is not True:
            reply(output.answer())
            return
        output.reply = reply
        self._watch(output.descriptor, lambda: self._unwatch(output))

    def write(self, request: Json, reply: Reply) -> None:
        """From pid, at, data, end: at, closed. When the process has room for it."""
        to, data = self._known(request).streams.input, request.get("data")
        if to is None:
            raise RequestError(f"process {request['pid']} was started without input")
        if not isinstance(data, str):
            raise RequestError("data must be a text")
        self._unwatch(to)
        try:
            at = None if request.get("at") is None else integer(request, "at")
            to.add(at, data, end=request.get("end", False) is True)
        except ValueError as error:
            raise RequestError(str(error)) from None
        if to.flush():
            reply(to.answer())
            return
        to.reply = reply
        self._watch(to.descriptor, lambda: self._write_on(to), selectors.EVENT_WRITE)

    def _write_on(self, to: Input) -> None:
        if to.flush():
            self._unwatch(to)

    def _unwatch(self, stream: Input | Output) -> None:
        """Answer who waits for this stream; another one asks, or there is something."""
        reply, stream.reply = stream.reply, None
        if reply is not None:
            self._selector.unregister(stream.descriptor)
            if isinstance(stream, Output):
                stream.look()
            reply(stream.answer())

    def _known(self, request: Json) -> Process:
        process = self._processes.get(integer(request, "pid"))
        if process is None:
            raise RequestError(f"no process {request['pid']} was started here")
        return process

    def _became_ready(self, pid: int, descriptor: int) -> None:
        try:
            data = os.read(descriptor, 1)
        except BlockingIOError:
            return
        self._selector.unregister(descriptor)
        os.close(descriptor)
        process = self._processes.get(pid)
        if data and process is not None:
            process.ready = True
            self._tell({"event": "ready", "pid": pid})

    def _children_changed(self, wake: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake, READ_SIZE)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                process = self._processes.get(pid)  # none for an orphan we inherited
                if process is not None:
                    process.exit = {
                        "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
                        "max_rss": usage.ru_maxrss * 1024,
                    }
                    self._tell({"event": "exit", "pid": pid, "exit": process.exit})

    def _copy_output(self, descriptor: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(descriptor, READ_SIZE)
            if self._log_left <= 0:
                return
            self._log_left -= len(data)
            if self._log_left <= 0:
                data += b"\n[sandcell: the log is full, the rest is not kept]\n"
            with contextlib.suppress(OSError):
                os.write(2, data)


_PATIENT = {do.__name__: do for do in (Agent.read, Agent.write)}
"""Those that answer when there is something to say."""
_OPERATIONS = {do.__name__: do for do in (Agent.spawn, Agent.signal, Agent.list, Agent.reap)}


def main(config: Json) -> None:
    """Give up rights, listen, wait for leave, serve."""
    if config.get("uid") is not None:
        rights.become(config["uid"])
    if config.get("locked", False):
        rights.check_locked()
    if config.get("check", False):
        rights.check_refused()
        return
    start = socket.socket(fileno=config["start_fd"])
    start.set_inheritable(False)
    # Neither other processes of this uid may trace us or read our memory (ptrace(2)),
    # nor may orphans of the session get away from us.
    libc = rights.libc()
    libc.prctl(rights.PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(rights.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    agent = Agent(config)
    start.sendall(b"r")
    if not start.recv(1):
        raise RequestError("the maker of this sandbox died before it was complete")
    start.close()
    agent.run()


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except (OSError, RequestError, rights.RightsError) as failure:
        code = failure.errno if isinstance(failure, OSError) else errno.EPERM
        sys.exit(f"sandcell agent: {failure} ({errno.errorcode.get(code or 0, code)})")
