"""The processes of a sandbox seen from outside, where no control group counts them.

All of a sandbox's processes descend from its agent, which adopts orphans. Numbers
come from /proc (proc(5)); a process that ends meanwhile counts as nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from sandcell_gateway.identity import ProcessRef, process_stat

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
STOP_ROUNDS = 100
"""Looks at a tree for processes that are not stopped yet before it counts as unstoppable."""
_HAS_CHILDREN = Path(f"/proc/self/task/{os.getpid()}/children").exists()
"""Some kernels are built without (CONFIG_PROC_CHILDREN)."""
_CPU_FIELDS = slice(11, 15)
"""Own user and system time, and that of ended children, after the state in /proc/PID/stat."""


def members(pid: int) -> list[int]:
    """The process and all its descendants that run, parents first."""
    found, todo = [pid], [pid]
    while todo:
        children = _children(todo.pop())
        found += children
        todo += children
    return found


def _children(pid: int) -> list[int]:
    if not _HAS_CHILDREN:
        return _scanned_children(pid)
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(thread.path, "children").read_text()
                found += [int(word) for word in text.split()]
    return found


def _scanned_children(pid: int) -> list[int]:
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(ProcessLookupError):
                if process_stat(int(entry.name)).parent == pid:
                    found.append(int(entry.name))
    return found


def resident(pid: int) -> int:
    """Bytes of memory that it uses; what it shares counts in full for each."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return 0


def proportional(pid: int) -> int:
    """Bytes of memory that it uses, shared ones divided; `resident` where that is closed."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return resident(pid)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of these processes and of their children that have ended."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/stat").read_bytes()
            total += sum(map(int, text[text.rindex(b")") + 2 :].split()[_CPU_FIELDS]))
    return total / TICKS


def stop(top: int) -> list[ProcessRef]:
    """SIGSTOP to the process and its whole tree; those that were stopped before.

    A process may fork until it is stopped, so we look until nothing new is found.
    Raises `TimeoutError` when that does not end.
    """
    before: list[ProcessRef] = []
    seen: set[ProcessRef] = set()
    for _ in range(STOP_ROUNDS):
        found = set(_refs(members(top)))
        if found <= seen and all(_is_stopped(ref.pid) for ref in found):
            return before
        for ref in found - seen:
            if _is_stopped(ref.pid):
                before.append(ref)
            ref.kill(signal.SIGSTOP)
        seen |= found
    raise TimeoutError(f"the processes below {top} do not stop")


def go_on(top: int, but: Iterable[ProcessRef]) -> None:
    """SIGCONT to the tree, but not to those that were stopped before."""
    stay = set(but)
    for ref in _refs(members(top)):
        if ref not in stay:
            ref.kill(signal.SIGCONT)


def _refs(pids: Iterable[int]) -> list[ProcessRef]:
    found: list[ProcessRef] = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(ProcessRef.capture(pid))
    return found


def _is_stopped(pid: int) -> bool:
    """Stopped, or at its end."""
    with contextlib.suppress(ProcessLookupError):
        return process_stat(pid).state in "TtZX"
    return True
