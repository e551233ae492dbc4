"""The shims' processes: started here or by an earlier gateway, watched through pidfds."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from sandcell_gateway.identity import ProcessRef, boot_id
from sandcell_gateway.sessions.places import Places

SHIM_MODULE = "sandcell_gateway.shim"
BACKLOG = 128
LEFT_RUNNING: list[subprocess.Popen[bytes]] = []
"""Shims that this gateway leaves to the next; a forgotten Popen would complain."""
_SCRUBBED = (
    "JPY_",
    "JUPYTERHUB_",
    "SANDCELL_TOKEN",
    "SANDCELL_WEBHOOK_SECRET",
    "SANDCELL_JWT_SECRET",
)
"""Beginnings of variables that a shim must not inherit."""


class ShimProcess:
    """A running shim. `ended` is set when it has exited, whoever its parent is."""

    def __init__(self, ref: ProcessRef, pidfd: int, child: subprocess.Popen[bytes] | None) -> None:
        self.ref = ref
        self.ended = asyncio.Event()
        self._pidfd = pidfd
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._exited)

    @classmethod
    def start(cls, places: Places) -> ShimProcess:
        """Start the shim of a session whose spec is written.

        Its socket listens already when this returns, so nobody has to wait for it.
        """
        places.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(places.socket))
            listener.listen(BACKLOG)
            child = _spawn(places, listener)
        try:
            return cls(ProcessRef.capture(child.pid), os.pidfd_open(child.pid), child)
        except BaseException:
            child.kill()
            child.wait()
            raise

    @classmethod
    def find(cls, stored: dict[str, Any] | None, places: Places) -> ShimProcess | None:
        """The shim that an earlier gateway started; None when it has ended."""
        ref = ProcessRef.from_json(stored) if stored else _search(places)
        if ref is None:
            return None
        try:
            return cls(ref, ref.open(), None)
        except ProcessLookupError:
            return None

    @property
    def stored(self) -> dict[str, Any]:
        """What `find` needs, as JSON."""
        return self.ref.as_json()

    @property
    def exit_code(self) -> int | None:
        """How it exited, as far as a parent knows; negative for a signal."""
        return self._child.returncode if self._child is not None else None

    def kill(self) -> None:
        """End it at once. Its sandbox lives on. Harmless when it has ended."""
        if not self.ended.is_set():
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return

    def release(self) -> None:
        """Stop watching; the shim runs on. Harmless when done before."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._child is not None and self._child.returncode is None:
            LEFT_RUNNING.append(self._child)

    def _exited(self) -> None:
        if self._child is not None:
            self._child.wait()
        self.ended.set()
        self.release()


def same_boot(stored: dict[str, Any]) -> bool:
    """Whether the machine has been up since the process was stored."""
    return bool(stored["boot_id"] == boot_id())


def _spawn(places: Places, listener: socket.socket) -> subprocess.Popen[bytes]:
    log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            _command(places.spec, listener.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={k: v for k, v in os.environ.items() if not k.startswith(_SCRUBBED)},
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    finally:
        os.close(log)


def _command(spec: Path, descriptor: int) -> list[str]:
    return [sys.executable, "-m", SHIM_MODULE, str(spec), "--listen-fd", str(descriptor)]


def _search(places: Places) -> ProcessRef | None:
    # For a gateway that died between starting a shim and storing its process.
    for process in psutil.process_iter(["cmdline", "uids"]):
        command: list[str] = process.info["cmdline"] or []
        uids = process.info["uids"]
        if str(places.spec) in command and SHIM_MODULE in command and uids.real == os.getuid():
            return ProcessRef.capture(process.pid)
    return None
