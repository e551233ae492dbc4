"""Control groups: hard limits, use and freezing of a sandbox's processes (cgroups(7)).

One `ControlGroup` is one sandbox, made of a directory per controller: with version 2
all are the same one; version 1 has a hierarchy for each; machines that mount both
offer version 2 for freezing only. What this machine lacks, a group lacks: `controls`
says what is there, and `engines.tree` does the rest without.

Groups are made below our own, never elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import select
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from sandcell_gateway.engines.base import Limits

MEMORY, CPU, PIDS, FREEZER = CONTROLS = ("memory", "cpu", "pids", "freezer")
OUR_LEAF = "sandcell-gateway"
"""Where `delegate` puts the gateway itself: groups with children hold no processes (v2)."""
PERIOD = 100_000
"""Microseconds over which a share of the processors is counted."""
FREEZE_TIMEOUT = 10.0
"""Seconds for all processes of a group to be frozen."""
REMOVE_TIMEOUT = 5.0
"""Seconds for a group whose processes were killed to be empty."""
POLL = 0.01
"""Seconds between two looks at what tells nobody when it is done."""


@dataclass(frozen=True)
class Home:
    """Our own group in one hierarchy, below which others can be made."""

    directory: Path
    version: int
    """1 or 2."""


class ControlGroup:
    """The groups of one sandbox."""

    def __init__(self, homes: Mapping[str, Home]) -> None:
        """`homes` are the sandbox's own directories by control."""
        self._homes = dict(homes)

    @classmethod
    def make(cls, name: str, limits: Limits) -> Self:
        """New groups with these limits; without controls where this machine offers none."""
        made: dict[str, Home] = {}
        for control, home in homes().items():
            directory = home.directory / name
            try:
                directory.mkdir(exist_ok=True)
            except OSError:
                continue  # closed since we looked
            made[control] = Home(directory, home.version)
        group = cls(made)
        for control in [control for control in made if not group.limit(control, limits)]:
            del group._homes[control]
        return group

    @property
    def controls(self) -> frozenset[str]:
        """Which of `CONTROLS` there are."""
        return frozenset(self._homes)

    # -- finding it again ----------------------------------------------------------------

    def as_json(self) -> dict[str, list[object]]:
        """For storing."""
        return {
            control: [str(home.directory), home.version] for control, home in self._homes.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, list[object]]) -> Self:
        """Read back what `as_json` gave; what has been removed meanwhile is left out.

        Raises `TypeError` or `ValueError`.
        """
        homes: dict[str, Home] = {}
        for control, (directory, version) in value.items():
            home = Home(Path(str(directory)), int(str(version)))
            if home.directory.is_dir():
                homes[control] = home
        return cls(homes)

    # -- membership and limits -----------------------------------------------------------

    def add(self, pid: int) -> None:
        """Put a process in; its descendants follow. A control that refuses it is dropped."""
        for control, home in list(self._homes.items()):
            if not _write(home.directory / "cgroup.procs", pid):
                del self._homes[control]

    def limit(self, control: str, limits: Limits) -> bool:
        """Set what the control limits. False when it does not take it."""
        home = self._homes[control]
        if control == MEMORY and limits.memory_bytes:
            return _limit_memory(home, limits.memory_bytes)
        if control == PIDS and limits.processes:
            return _write(home.directory / "pids.max", limits.processes)
        if control == CPU and limits.cpus:
            return _limit_cpu(home, limits.cpus)
        return True

    # -- use -----------------------------------------------------------------------------

    def memory(self) -> tuple[int, int] | None:
        """Bytes now and at most; None without the control."""
        home = self._homes.get(MEMORY)
        if home is None:
            return None
        names = _MEMORY_FILES[home.version]
        now = _read_number(home.directory / names[0])
        return now, max(now, _read_number(home.directory / names[1]))

    def memory_kills(self) -> int:
        """How many processes the kernel ended for want of memory."""
        home = self._homes.get(MEMORY)
        if home is None:
            return 0
        name = "memory.events" if home.version == 2 else "memory.oom_control"
        return _read_table(home.directory / name).get("oom_kill", 0)

    # -- freezing ------------------------------------------------------------------------

    async def freeze(self) -> None:
        """Stop all processes. Raises `TimeoutError`, or `OSError` without the control."""
        home = self._homes[FREEZER]
        if home.version == 2:
            (home.directory / "cgroup.freeze").write_text("1")
            await asyncio.to_thread(_wait_frozen, home.directory / "cgroup.events")
            return
        async with asyncio.timeout(FREEZE_TIMEOUT):
            # Version 1 freezes while it is asked, and tells nobody when it is done.
            while (home.directory / "freezer.state").read_text().strip() != "FROZEN":
                (home.directory / "freezer.state").write_text("FROZEN")
                await asyncio.sleep(POLL)

    def thaw(self) -> None:
        """Let all go on; harmless when they do. On version 1 a killed process ends only then."""
        home = self._homes.get(FREEZER)
        if home is not None:
            version_1 = ("freezer.state", "THAWED")
            name, value = version_1 if home.version == 1 else ("cgroup.freeze", "0")
            _write(home.directory / name, value)

    # -- the end -------------------------------------------------------------------------

    async def remove(self) -> None:
        """End whatever is left in it and remove it. A group that stays harms nobody."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(REMOVE_TIMEOUT):
                for home in self._homes.values():
                    while not _rmdir(home.directory):
                        self._kill(home.directory)
                        await asyncio.sleep(POLL)

    def _kill(self, directory: Path) -> None:
        for pid in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        self.thaw()


_MEMORY_FILES = {
    1: ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
    2: ("memory.current", "memory.peak"),
}


def _limit_memory(home: Home, wanted: int) -> bool:
    """Memory and swap together, so that a session at its limit does not swap the machine down."""
    directory = home.directory
    if home.version == 2:
        _write(directory / "memory.swap.max", 0)
        return _write(directory / "memory.max", wanted)
    done = _write(directory / "memory.limit_in_bytes", wanted)
    _write(directory / "memory.memsw.limit_in_bytes", wanted)
    return done


def _limit_cpu(home: Home, cpus: float) -> bool:
    quota = int(cpus * PERIOD)
    if home.version == 2:
        return _write(home.directory / "cpu.max", f"{quota} {PERIOD}")
    _write(home.directory / "cpu.cfs_period_us", PERIOD)
    return _write(home.directory / "cpu.cfs_quota_us", quota)


def _write(path: Path, value: object) -> bool:
    try:
        path.write_text(f"{value}")
    except OSError:
        return False
    return True


def _rmdir(directory: Path) -> bool:
    """False while processes are in it. Raises `OSError` for other reasons."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _read_number(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def _read_table(path: Path) -> dict[str, int]:
    """A file of lines `name number`."""
    with contextlib.suppress(OSError, ValueError):
        rows = (line.split() for line in path.read_text().splitlines())
        return {row[0]: int(row[1]) for row in rows if len(row) == 2}
    return {}


def _wait_frozen(events: Path) -> None:
    """Raises `TimeoutError`."""
    with events.open() as file:
        changed = select.poll()
        changed.register(file, select.POLLPRI)
        while "frozen 1" not in file.read():
            if not changed.poll(FREEZE_TIMEOUT * 1000):
                raise TimeoutError(f"not frozen after {FREEZE_TIMEOUT:g} s")
            file.seek(0)


# -- what this machine offers --------------------------------------------------------------


@cache
def homes() -> Mapping[str, Home]:
    """Our own group by control, where groups can be made below it."""
    return {control: home for control, home in _own_homes().items() if _usable(control, home)}


def _own_homes() -> dict[str, Home]:
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return {}
    return find_homes(mounts, groups)


def find_homes(mounts: str, groups: str) -> dict[str, Home]:
    """Our own group by control, from /proc/self/mountinfo and /proc/self/cgroup. Pure.

    Version 2 first for freezing, whose processes can be killed while frozen; for the
    others whichever has the controller: only one of the two can.
    """
    found: dict[str, Home] = {}
    own = _own_groups(groups)
    for kind, root, point, options in _mounts(mounts):
        controllers = [""] if kind == "cgroup2" else [c for c in CONTROLS if c in options]
        for controller in controllers:
            group = own.get(controller)
            if group is None or not Path(group).is_relative_to(root):
                continue
            directory = Path(point, os.path.relpath(group, root))
            if controller:
                found.setdefault(controller, Home(directory, 1))
                continue
            if directory.name == OUR_LEAF:
                directory = directory.parent
            found |= {control: Home(directory, 2) for control in CONTROLS if control not in found}
            found[FREEZER] = Home(directory, 2)
    return found


def _own_groups(text: str) -> dict[str, str]:
    """Controller → our group's path; version 2 has the empty name."""
    rows = (line.split(":", 2) for line in text.splitlines())
    return {name: path for _, names, path in rows for name in names.split(",")}


def _mounts(text: str) -> list[tuple[str, str, str, list[str]]]:
    """Kind, root, mount point and options of the control group file systems; version 1 first."""
    found: list[tuple[str, str, str, list[str]]] = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
            found.append((kind, fields[3], point, options.split(",")))
    return sorted(found)


def _usable(control: str, home: Home) -> bool:
    """Whether groups can be made there, and have the control."""
    if not os.access(home.directory, os.W_OK | os.X_OK):
        return False
    if home.version == 1 or control == FREEZER:
        return True
    with contextlib.suppress(OSError):
        return control in (home.directory / "cgroup.subtree_control").read_text().split()
    return False


def delegate() -> None:
    """Version 2: make room for groups with limits below ours, if we are alone in it.

    A group with processes cannot have limited children, so this process moves to a
    leaf. Call it before other processes are started; elsewhere it changes nothing.
    """
    home = _own_homes().get(FREEZER)
    if home is None or home.version == 1 or not os.access(home.directory, os.W_OK):
        return
    with contextlib.suppress(OSError):
        if (home.directory / "cgroup.procs").read_text().split() != [str(os.getpid())]:
            return
        offered = (home.directory / "cgroup.controllers").read_text().split()
        leaf = home.directory / OUR_LEAF
        leaf.mkdir(exist_ok=True)
        _write(leaf / "cgroup.procs", os.getpid())
        for control in {MEMORY, CPU, PIDS}.intersection(offered):
            _write(home.directory / "cgroup.subtree_control", f"+{control}")
        homes.cache_clear()


def memory_bound() -> int:
    """Bytes of memory that this machine, or the group we are in, has."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    home = homes().get(MEMORY)
    if home is not None:
        name = "memory.max" if home.version == 2 else "memory.limit_in_bytes"
        directories = (home.directory, *home.directory.parents)
        bounds += [_read_number(directory / name) for directory in directories]
    return min(bound for bound in bounds if bound > 0)
