"""The parts of a running path, found from outside as an operator would."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.home import Home

PATIENCE = 60.0
"""Seconds to wait for something that must happen."""


def eventually(what: str, check: Callable[[], bool], *, patience: float = PATIENCE) -> None:
    """Wait until `check` holds; the test fails with `what` after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not check():
        assert time.monotonic() < deadline, f"did not happen within {patience} s: {what}"
        time.sleep(0.02)


def processes(home: Home, module: str) -> list[psutil.Process]:
    """Processes of this home that run a module of ours, e.g. `sandcell_gateway.shim`."""
    found = []
    for process in psutil.process_iter():
        try:
            if module in process.cmdline() and _belongs(process, home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _belongs(process: psutil.Process, home: Home) -> bool:
    return process.environ().get("SANDCELL_RUNTIME_DIR") == str(home.runtime)


def gateway(home: Home) -> psutil.Process:
    """The embedded gateway."""
    (process,) = processes(home, "sandcell_gateway")
    return process


def shim(home: Home) -> psutil.Process:
    """The only session's shim."""
    (process,) = processes(home, "sandcell_gateway.shim")
    return process


def kill(process: psutil.Process) -> None:
    """kill -9, and wait until it is gone."""
    os.kill(process.pid, signal.SIGKILL)
    eventually(f"death of {process.pid}", lambda: not _runs(process))


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def session_directories(home: Home) -> list[Path]:
    """State directories of the sessions that have any."""
    root = home.state / "sessions"
    return sorted(root.iterdir()) if root.is_dir() else []


def sandbox_state(home: Home) -> dict[str, object]:
    """What the shim stored of the only session's sandbox."""
    (directory,) = session_directories(home)
    stored: dict[str, object] = json.loads((directory / "sandbox.json").read_text())
    return stored


def leftovers(home: Home) -> list[str]:
    """Sockets and session directories that still exist."""
    if not home.runtime.is_dir():
        return []
    sockets = [str(path) for path in home.runtime.rglob("*") if path.is_socket()]
    return sockets + [str(path) for path in session_directories(home)]
