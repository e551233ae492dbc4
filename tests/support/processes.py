"""Find the processes that a test started, however far they went to detach themselves."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

import psutil

END_SECONDS = 15.0
"""How long processes may take to end by themselves after a test."""
KILL_SECONDS = 5.0
"""How long the kernel may take to end killed processes."""


def _mentions(pid: int, needle: bytes) -> bool:
    """Whether a process carries `needle` in its arguments, environment or mounts.

    A sandbox's processes have neither our arguments nor our environment, but
    the sources of their mounts still name the directory.
    """
    for name in ("cmdline", "environ", "mountinfo"):
        with contextlib.suppress(OSError):
            if needle in Path(f"/proc/{pid}/{name}").read_bytes():
                return True
    return False


def processes_of(directory: Path) -> list[psutil.Process]:
    """Every process but this one and its parents that has to do with `directory`."""
    needle = os.fsencode(directory) + b"/"
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (
                process.pid not in mine
                and process.status() != psutil.STATUS_ZOMBIE
                and _mentions(process.pid, needle)
            ):
                found.append(process)
    return found


def describe(process: psutil.Process) -> str:
    """Pid and command line, for a failure's text."""
    try:
        return f"{process.pid}: {' '.join(process.cmdline())[:300] or process.name()}"
    except psutil.Error:
        return f"{process.pid}: (ended)"


def _wait_ended(processes: list[psutil.Process], seconds: float) -> None:
    """Until all have ended or `seconds` are over; reaps nobody's children."""
    deadline = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(process.pid)
            try:
                select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            finally:
                os.close(descriptor)


def end_all(directory: Path, patience: float = END_SECONDS) -> list[str]:
    """Wait until no process of `directory` is left; kill those that stay and describe them."""
    deadline = time.monotonic() + patience
    while (left := processes_of(directory)) and time.monotonic() < deadline:
        busy = [process for process in left if not _is_gateway(process)]
        if not busy:
            # Unused, so it would end by itself, but later.
            _signal(left, signal.SIGTERM)
        _wait_ended(busy or left, deadline - time.monotonic())
    described = [describe(process) for process in left]
    _signal(left, signal.SIGKILL)
    _wait_ended(left, KILL_SECONDS)
    return described


def _is_gateway(process: psutil.Process) -> bool:
    try:
        return "sandcell_gateway" in process.cmdline()
    except psutil.Error:
        return False


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
