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
import resource
import selectors
import signal
import socket
import struct
import sys

TYPE_CHECKING = False  # importing typing takes time, too
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable
    from typing import Any, NoReturn

    Json = dict[str, Any]

MAX_LINE = 1 << 20
"""Longest line in bytes, either way."""
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


class RequestError(Exception):
    """A request that cannot be done; the text goes to the client."""


class Lines:
    """Cuts a stream of bytes into lines of at most MAX_LINE bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now. Raises `RequestError` for one that is too long."""
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n")
        if any(len(line) > MAX_LINE for line in [*lines, rest]):
            raise RequestError(f"a line has more than {MAX_LINE} bytes")
        self._rest = bytearray(rest)
        return lines


def parse(line: bytes) -> Json:
    """One request. Raises `RequestError`."""
    try:
        request: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not JSON: {error}"[:200]) from None
    if not isinstance(request, dict):
        raise RequestError("expected an object")
    return request  # pyright: ignore[reportUnknownVariableType]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)  # pyright: ignore[reportUnknownVariableType]


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


def _integer(request: Json, name: str) -> int:
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be an integer")
    return value


class Order:
    """What `spawn` asks for, checked. Raises `RequestError`."""

    def __init__(self, request: Json) -> None:
        argv, env = request.get("argv"), request.get("env", {})
        cwd, log = request.get("cwd", "/"), request.get("log")
        if not _is_texts(argv) or not argv:
            raise RequestError("argv must be a list of at least one text")
        if not isinstance(env, dict) or not _is_texts([*env.values()]):
            raise RequestError("env must map names to texts")
        if not isinstance(cwd, str) or not isinstance(log, (str, type(None))):
            raise RequestError("cwd must be a text, log a text or null")
        self.argv: list[str] = argv
        self.env: dict[str, str] = env
        self.cwd = cwd
        self.log = log
        self.ready = request.get("ready", False) is True


class Connection:
    """One client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.lines, self.pending = sock, Lines(), bytearray()


class Process:
    """One process we started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ready = False
        self.exit: Json | None = None

    def describe(self) -> Json:
        """As `list` shows it."""
        return {**vars(self), "running": self.exit is None}


_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 4, 24, 36
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3, _CLONE_NEWUSER = 0x20080522, 0x10000000
_CAPABILITIES = 64
"""More than any kernel has; those it does not know it refuses with EINVAL."""


def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def become(uid: int) -> None:
    """Take an unprivileged identity for ever. Raises `OSError`."""
    libc = _libc()
    for capability in range(_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    # The inheritable set survives the change of uid (capabilities(7)).
    libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def check_locked() -> None:
    """Make sure that nothing is left to give up, whatever did the work. Raises `RequestError`."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    wrong = [f"{name} is {status[name]}" for name in status if _is_wrong(name, status[name])]
    if wrong:
        raise RequestError(f"the sandbox would keep rights: {', '.join(wrong)}")


def _is_wrong(name: str, value: str) -> bool:
    if name in ("Uid", "Gid"):
        return "0" in value.split()
    if name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        return int(value, 16) != 0
    return {"NoNewPrivs": "1", "Seccomp": "2"}.get(name, value) != value


def check_refused() -> None:
    """Make sure that ways back to rights are closed. Raises `RequestError`."""
    if _libc().unshare(_CLONE_NEWUSER) == 0:
        raise RequestError("the sandbox may make a user namespace, and has all rights in it")
    with contextlib.suppress(OSError):
        os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
        raise RequestError("the sandbox may write to /proc/sys")


_LIMITS = {
    "processes": resource.RLIMIT_NPROC,
    "open_files": resource.RLIMIT_NOFILE,
    "file_bytes": resource.RLIMIT_FSIZE,
    "data_bytes": resource.RLIMIT_DATA,
}


def _limit(limits: Json) -> None:
    """Bound this process and its descendants; called after entering the user namespace.

    Before it, RLIMIT_NPROC would count all processes of the host's user.
    """
    for name, which in _LIMITS.items():
        wanted = limits.get(name, 0)
        if wanted > 0:
            hard = resource.getrlimit(which)[1]
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(which, (value, value))
    if limits.get("cpus"):
        os.sched_setaffinity(0, limits["cpus"])
    # When the machine has no memory left, a session's processes go before the host's.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    # Not 0: a limit of 1 also stops a core_pattern that pipes to a program of the host,
    # for which any other limit counts for nothing (fs/coredump.c).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


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

    def _watch(self, source: int | socket.socket, callback: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, callback)

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
                self._send(connection, self._answer(line))
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

    def _answer(self, line: bytes) -> Json:
        answer: Json = {"id": None}
        try:
            request = parse(line)
            answer["id"] = request.get("id")
            do = _OPERATIONS.get(str(request.get("op")), Agent.unknown)
            return {**answer, "ok": True, **do(self, request)}
        except RequestError as error:
            return {**answer, "ok": False, "error": str(error)}

    def unknown(self, request: Json) -> Json:
        """For any other."""
        raise RequestError(f"unknown op; known are {', '.join(_OPERATIONS)}")

    def spawn(self, request: Json) -> Json:
        """From argv, env, cwd, log, ready: pid."""
        order = Order(request)
        if len(self._processes) >= MAX_PROCESSES:
            raise RequestError(f"{MAX_PROCESSES} processes are remembered; reap some")
        read_end, ready = os.pipe() if order.ready else (-1, -1)
        failed, failure = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                self._become_child(order, ready, failure)
        except OSError as error:
            _close(read_end, ready, failed, failure)
            raise RequestError(f"cannot start a process: {error.strerror}") from None
        _close(ready, failure)
        with os.fdopen(failed, "rb") as pipe:
            reason = pipe.read()  # ends when the child has become the program
        if reason:
            _close(read_end)
            os.waitpid(pid, 0)
            raise RequestError(reason.decode("utf-8", "replace"))
        self._processes[pid] = Process(pid)
        if order.ready:
            os.set_blocking(read_end, False)
            self._watch(read_end, lambda: self._became_ready(pid, read_end))
        return {"pid": pid}

    def _become_child(self, order: Order, ready: int, failure: int) -> NoReturn:
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
            _limit(self._limits)
            os.chdir(order.cwd)
            for source, target in ((self._null, 0), (output, 1), (output, 2)):
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
        process, number = self._known(request), _integer(request, "signal")
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
        return {}

    def _known(self, request: Json) -> Process:
        process = self._processes.get(_integer(request, "pid"))
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


_OPERATIONS = {do.__name__: do for do in (Agent.spawn, Agent.signal, Agent.list, Agent.reap)}


def main(config: Json) -> None:
    """Give up rights, listen, wait for leave, serve."""
    if config.get("uid") is not None:
        become(config["uid"])
    if config.get("locked", False):
        check_locked()
    if config.get("check", False):
        check_refused()
        return
    start = socket.socket(fileno=config["start_fd"])
    start.set_inheritable(False)
    # Neither other processes of this uid may trace us or read our memory (ptrace(2)),
    # nor may orphans of the session get away from us.
    libc = _libc()
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    agent = Agent(config)
    start.sendall(b"r")
    if not start.recv(1):
        raise RequestError("the maker of this sandbox died before it was complete")
    start.close()
    agent.run()


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except (OSError, RequestError) as failure:
        code = failure.errno if isinstance(failure, OSError) else errno.EPERM
        sys.exit(f"sandcell agent: {failure} ({errno.errorcode.get(code or 0, code)})")
