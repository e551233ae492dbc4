"""Looks after the limits of a session that nothing enforces by itself, and tells of the others.

What a look means is decided by `Watch`, which is pure; the loop around it acts. Memory
that no control group bounds may exceed its limit by what a process can fill in one
interval; so may the disk, and there the writer is interrupted first: what it has
written stays, and files are deleted by who knows which.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sandcell_gateway.engines.base import DiskUsage, Limits, Sandbox, Usage
from sandcell_wire.units import human_bytes

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between looks at memory."""
NEAR = 0.5
"""Part of the memory limit from which looks come every `NEAR_INTERVAL`."""
NEAR_INTERVAL = 0.2
DISK_INTERVAL = 2.0
"""Least seconds between looks at the disk."""
DISK_SHARE = 20
"""A look at the disk is followed by this many times its own duration without one."""


@dataclass(frozen=True)
class Doing:
    """What a look calls for."""

    tell: str = ""
    """For the cells that run."""
    end_largest: bool = False
    interrupt: bool = False
    end: bool = False
    """End the interpreter; `tell` says why."""


class Watch:
    """What earlier looks saw. Pure."""

    def __init__(self, limits: Limits, soft: frozenset[str]) -> None:
        self._limits = limits
        self._soft = soft
        self._kills = 0
        """Processes ended for want of memory at the last look."""
        self._known_kills = 0
        """Of these, the ones that somebody was told of."""
        self._over = 0
        """Bytes over the disk's limit at the last look; 0 within it."""
        self._interrupted = False
        """Whether the last look at the disk ended with an interrupt."""

    def memory(self, usage: Usage) -> Doing:
        """After a look at memory."""
        limit = self._limits.memory_bytes
        if "memory" in self._soft and limit and usage.memory_bytes > limit:
            return Doing(end_largest=True)
        # If it was the interpreter, its end is explained before the next look.
        before, self._kills = self._kills, usage.memory_kills
        if self._known_kills < before:
            self._known_kills = before
            return Doing(f"a process of the session was ended: {out_of_memory(usage, limit)}")
        return Doing()

    def explains(self, usage: Usage) -> bool:
        """Whether a process was ended for want of memory that nobody was told of yet."""
        known, self._known_kills = self._known_kills, usage.memory_kills
        return usage.memory_kills > known

    def disk(self, usage: DiskUsage) -> Doing:
        """After a look at the disk: interrupt who is over the limit, end who goes on."""
        limit = self._limits.disk_bytes
        over = usage.bytes - limit if limit else 0
        if limit and not usage.complete:
            over = max(over, 1)
        before, self._over = self._over, max(over, 0)
        interrupted, self._interrupted = self._interrupted, False
        if over <= before:
            return Doing()
        text = f"{_describe(usage)}; the session's limit is {human_bytes(limit)}. Delete files"
        if interrupted:
            return Doing(text, end=True)
        self._interrupted = True
        return Doing(f"interrupted: {text}", interrupt=True)


def _describe(usage: DiskUsage) -> str:
    if usage.complete:
        return f"the files take {human_bytes(usage.bytes)}"
    return f"there are more files than can be counted (after {usage.files})"


def out_of_memory(usage: Usage, limit: int) -> str:
    """Why the kernel, or the watchdog in its place, ended a process."""
    if limit and usage.memory_peak >= NEAR * limit:
        at = f"at the session's limit of {human_bytes(limit)}"
    else:
        at = "because the machine ran out of memory"
    return f"out of memory {at} (peak {human_bytes(usage.memory_peak)})"


class Watchdog:
    """Watches one sandbox until cancelled."""

    def __init__(
        self,
        sandbox: Sandbox,
        limits: Limits,
        *,
        tell: Callable[[str], None],
        interrupt: Callable[[], None],
        end: Callable[[str], Awaitable[None]],
    ) -> None:
        self._sandbox = sandbox
        self._limits = limits
        self._watch = Watch(limits, sandbox.soft)
        self._tell = tell
        self._interrupt = interrupt
        self._end = end

    async def memory_reason(self) -> str:
        """Why a process was just ended, if it was for want of memory; else empty."""
        usage = await self._sandbox.usage()
        if not self._watch.explains(usage):
            return ""
        return out_of_memory(usage, self._limits.memory_bytes)

    async def run(self) -> None:
        """For the sandbox's life."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_at_memory())
            group.create_task(self._look_at_disk())

    async def _look_at_memory(self) -> None:
        while True:
            usage = await self._sandbox.usage()
            await self._do(self._watch.memory(usage))
            limit = self._limits.memory_bytes
            near = limit and usage.memory_bytes > NEAR * limit
            await asyncio.sleep(NEAR_INTERVAL if near else INTERVAL)

    async def _look_at_disk(self) -> None:
        while True:
            began = time.monotonic()
            usage = await self._sandbox.disk_usage()
            await self._do(self._watch.disk(usage))
            took = time.monotonic() - began
            await asyncio.sleep(max(DISK_INTERVAL, DISK_SHARE * took))

    async def _do(self, doing: Doing) -> None:
        if doing.end_largest:
            await self._sandbox.end_largest()
        if doing.end:
            await self._end(doing.tell)
        elif doing.tell:
            log.warning("%s", doing.tell)
            self._tell(f"sandcell: {doing.tell}\n")
        if doing.interrupt:
            self._interrupt()
