"""Starts ipykernel in a sandbox: no output is dropped, and readiness is told.

    SANDCELL_CONNECTION='{...}' python kernel_launcher.py --Session.session=ID

ipykernel's publisher drops messages beyond its high-water mark; with XPUB_NODROP
it waits for its reader instead, so that a shim that stops reading holds the
kernel back (ISOLATION, "Sockets between shim and sandbox").

The connection comes as JSON in SANDCELL_CONNECTION, or as a file with `-f`. When
the sockets are bound and the kernel has started, one byte goes to the descriptor
that SANDCELL_READY_FD names. Both variables are gone before any cell runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import zmq
from ipykernel.iostream import OutStream
from ipykernel.kernelapp import IPKernelApp
from IPython.core.error import UsageError
from tornado.ioloop import IOLoop

CONNECTION = "SANDCELL_CONNECTION"
READY_FD = "SANDCELL_READY_FD"
RUNTIME = "JUPYTER_RUNTIME_DIR"
MAX_TEXT = 1 << 16
"""About the most characters of one stream message."""
HELP = """\
command                                      what it does
%sandbox status                              Show the session: status, reason, engine.
%sandbox list                                List your live sessions.
%sandbox start [NAME]                        Start a new session; one with a name is kept.
%sandbox attach NAME                         Use another session; show what was missed of it.
%sandbox replay [N]                          Show the outputs of the last N cells again.
%sandbox jobs                                List the cells that were started detached.
%sandbox wait [--timeout SECONDS] [JOB ...]  Wait for jobs; without a name for all.
%sandbox result JOB                          Show what a job put out.
%sandbox restart                             Start a fresh interpreter; files and packages stay.
%sandbox close                               Close the session and discard it.
%sandbox help                                List the commands.
%%sandbox --detach [--webhook URL]           Start the cell's code and go on; see jobs.

These lines stand at the top of a cell, before any code."""


_write = OutStream.write  # `super()` costs more, twice for every line that is printed


class BoundedStream(OutStream):
    """stdout or stderr whose messages have a bound, and its writer with them.

    ipykernel gathers what is written until its thread gets to it, and sends that as
    one message: hundreds of megabytes when a loop prints quickly.
    """

    flush_timeout = 600  # seconds: a session that takes nothing for so long is broken
    _gathered = 0

    def write(self, string: str) -> int:
        """Write; waits for what was written before whenever that is `MAX_TEXT`."""
        try:
            self._gathered += len(string)
        except TypeError:  # it is no text, of which ipykernel tells
            _write(self, string)
        if self._gathered < MAX_TEXT:
            _write(self, string)
            return len(string)
        for start in range(0, len(string), MAX_TEXT):
            _write(self, string[start : start + MAX_TEXT])
            self.flush()  # type: ignore[no-untyped-call]
        self._gathered = 0
        return len(string)


class Launcher(IPKernelApp):
    """IPKernelApp whose publisher never drops, and which says when it serves."""

    name = "ipython-kernel"
    outstream_class = f"{__name__}.{BoundedStream.__name__}"
    kernel: Any
    ready_fd: int | None = None

    def _bind_socket(self, s: zmq.Socket[Any], port: int) -> int:
        if s.type == zmq.XPUB:
            s.setsockopt(zmq.XPUB_NODROP, 1)  # takes effect for peers that come after it
            # A shim that takes over is welcomed although its predecessor's line, of the same
            # subscription, is not gone yet: a sandbox that was frozen learns of both at once.
            s.setsockopt(zmq.XPUB_VERBOSE, 1)
        bound: int = super()._bind_socket(s, port)  # type: ignore[no-untyped-call]
        return bound

    def init_kernel(self) -> None:
        super().init_kernel()  # type: ignore[no-untyped-call]
        start = self.kernel.start

        def start_and_tell() -> None:
            start()
            wake_by_signals()
            if self.ready_fd is not None:
                os.write(self.ready_fd, b"r")
                os.close(self.ready_fd)

        self.kernel.start = start_and_tell

    def init_shell(self) -> None:
        super().init_shell()  # type: ignore[no-untyped-call]
        shell: Any = self.shell
        shell.register_magic_function(LocalLines(self.kernel), "line_cell", "sandbox")


def wake_by_signals() -> None:
    """Let a signal wake the event loop.

    ipykernel ends an interrupted `await` by a callback that its SIGINT handler adds;
    asleep in the selector, the loop would not look at it before the next message.
    """
    loop: asyncio.AbstractEventLoop = cast("Any", IOLoop.current()).asyncio_loop
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    loop.add_reader(reader, reader.recv, 4096)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)


class LocalLines:
    """`%sandbox` in here: skips the lines that the local kernel has done, refuses others.

    The cell arrives unchanged, so that tracebacks and breakpoints keep their lines;
    its metadata says how many leading lines are done.
    """

    __name__ = "sandbox"

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._cell = ""
        self._left = 0

    def __call__(self, line: str, cell: str | None = None) -> None:
        """Skip a line that is done. Raises `UsageError` for one that is not."""
        parent = self._kernel.get_parent()
        if parent["header"]["msg_id"] != self._cell:
            self._cell = parent["header"]["msg_id"]
            self._left = parent["metadata"].get("sandcell", {}).get("lines_done", 0)
        if cell is not None:
            raise UsageError("%%sandbox must be the first line of its cell, with nothing above it")
        if self._left <= 0:
            raise UsageError("a %sandbox line must stand at the top of its cell, before any code")
        self._left -= 1

    def getdoc(self) -> str:
        """What IPython shows for `%sandbox?`."""
        return HELP


def connection_file(connection: str) -> str:
    """Store the connection where ipykernel and its %connect_info look for it."""
    value = json.loads(connection)
    directory = Path(os.environ.get(RUNTIME) or tempfile.mkdtemp(prefix="kernel-"))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"kernel-{Path(value['ip']).name}.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file)
    return str(path)


def main() -> None:
    """The program."""
    connection = os.environ.pop(CONNECTION, None)
    ready = os.environ.pop(READY_FD, None)
    if ready is not None:
        Launcher.ready_fd = int(ready)
        os.set_inheritable(Launcher.ready_fd, False)
    # Cells import from their own directory, which IPython puts here, not from ours.
    del sys.path[0]
    arguments = sys.argv[1:]
    if connection is not None:
        arguments = ["-f", connection_file(connection), *arguments]
    app = Launcher.instance()
    app.initialize(arguments)  # type: ignore[no-untyped-call]
    app.start()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
