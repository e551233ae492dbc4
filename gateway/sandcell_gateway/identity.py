"""Who a process is, and as whom a session runs.

A pid alone names nobody: it is given out again. A `ProcessRef` (pid, start time,
boot) names one process for ever; every signal goes through a pidfd that was
checked against it.

A gateway run by root gives each session a uid of its own (ISOLATION, "Users and
privileges"): `pick_uid`, checked by `require_uid` wherever it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import secrets
import select
import signal
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

UID_RANGES = (range(1_900_000_000, 2_100_000_000), range(30_000, 60_000))
"""Where session uids come from, best first. systemd leaves the first unused
(https://systemd.io/UIDS-GIDS); containers that map only 65,536 ids have the second."""
SMALLEST_UID = 10_000
"""Below it are the system's and its users' uids."""
PICK_ATTEMPTS = 1000
"""Random draws before all uids count as taken."""


class IdentityError(Exception):
    """No uid can be had, or the given one must not run a session; the text says what to do."""


# -- processes -----------------------------------------------------------------------------


def boot_id() -> str:
    """Changes with every boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int:
    """Clock ticks from the boot to the process's start. Raises `ProcessLookupError`."""
    return process_stat(pid).start_time


@dataclass(frozen=True)
class ProcessStat:
    """Part of /proc/PID/stat (proc(5))."""

    state: str
    """One letter; Z is a zombie."""
    parent: int
    start_time: int


def process_stat(pid: int) -> ProcessStat:
    """Of a running process or zombie. Raises `ProcessLookupError`."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"no process {pid}") from None
    # The command's name stands in parentheses and may hold anything, even ")".
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessStat(fields[0].decode(), int(fields[1]), int(fields[19]))


@dataclass(frozen=True)
class ProcessRef:
    """One process of this boot, never another that got its pid later."""

    pid: int
    start_time: int
    """Clock ticks since boot."""
    boot_id: str

    @classmethod
    def capture(cls, pid: int) -> Self:
        """Of a running process. Raises `ProcessLookupError`.

        Only sure to be the one you mean while its pid cannot be given out again:
        a child not yet waited for, a peer that still answers, or yourself.
        """
        return cls(pid, start_time(pid), boot_id())

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read back what `as_json` gave. Raises `KeyError`, `TypeError` or `ValueError`."""
        return cls(int(value["pid"]), int(value["start_time"]), str(value["boot_id"]))

    def as_json(self) -> dict[str, Any]:
        """For storing."""
        return asdict(self)

    def open(self) -> int:
        """A pidfd of it, to be closed by the caller. Raises `ProcessLookupError` when it ended.

        A zombie has not ended: its pidfd polls readable at once.
        """
        if self.pid <= 0 or self.boot_id != boot_id():
            raise ProcessLookupError(f"process {self.pid} belongs to an earlier boot")
        descriptor = os.pidfd_open(self.pid)
        # Checked after opening: the pidfd now holds on to whoever has the pid.
        with contextlib.suppress(ProcessLookupError):
            if start_time(self.pid) == self.start_time:
                return descriptor
        os.close(descriptor)
        raise ProcessLookupError(f"process {self.pid} has ended")

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            descriptor = self.open()
        except ProcessLookupError:
            return False
        try:
            return not pidfd_ended(descriptor)
        finally:
            os.close(descriptor)

    def kill(self, sig: int = signal.SIGKILL) -> bool:
        """Send a signal; False when it has ended already. Raises `PermissionError`."""
        try:
            descriptor = self.open()
        except ProcessLookupError:
            return False
        try:
            signal.pidfd_send_signal(descriptor, sig)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    async def wait(self, timeout: float | None = None) -> None:
        """Until it has ended. Raises `TimeoutError` after `timeout` seconds.

        Reaps nothing: a child of ours stays a zombie for its owner.
        """
        try:
            descriptor = self.open()
        except ProcessLookupError:
            return
        try:
            await wait_pidfd(descriptor, timeout)
        finally:
            os.close(descriptor)


def pidfd_ended(descriptor: int) -> bool:
    """Whether the pidfd's process has ended (it may be a zombie)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def wait_pidfd(descriptor: int, timeout: float | None = None) -> None:
    """Until the pidfd's process has ended. Raises `TimeoutError`. The descriptor stays open."""
    await wait_readable(descriptor, timeout)


async def wait_readable(descriptor: int, timeout: float | None = None) -> None:
    """Until a descriptor (pidfd, pipe, socket) polls readable or is hung up.

    Several may wait for the same one: each watches a duplicate of its own.
    Raises `TimeoutError` after `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    own = os.dup(descriptor)

    def is_ready() -> None:
        loop.remove_reader(own)
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(own, is_ready)
    try:
        async with asyncio.timeout(timeout):
            await ready
    finally:
        loop.remove_reader(own)
        os.close(own)


# -- the users of sessions -----------------------------------------------------------------


def pick_uid(taken: Container[int]) -> int | None:
    """A uid and gid for a new session that none of `taken` has; None for an ordinary user.

    Nobody in the user database and no running process has it either. Raises `IdentityError`.
    """
    if os.geteuid() != 0:
        return None
    available = _usable_range()
    running = _running_uids()
    for _ in range(PICK_ATTEMPTS):
        uid = available[secrets.randbelow(len(available))]
        if uid not in taken and uid not in running and not _has_account(uid):
            return uid
    raise IdentityError(f"found no free uid in {available.start}..{available.stop - 1}")


def require_uid(uid: int | None) -> int | None:
    """The same uid if a session may run under it here. Raises `IdentityError`."""
    if os.geteuid() != 0:
        if uid is not None:
            raise IdentityError(f"only root can run a session as uid {uid}; give None")
        return None
    if uid is None:
        raise IdentityError("a gateway run by root needs a uid of its own for each session")
    if uid < SMALLEST_UID or _has_account(uid):
        raise IdentityError(
            f"uid {uid} must not run a session: it belongs to the system or a user of this host; "
            f"take one above {SMALLEST_UID} without an account"
        )
    return uid


def _usable_range() -> range:
    maps = (_mapped_ids("uid"), _mapped_ids("gid"))
    for candidates in UID_RANGES:
        ends = (candidates.start, candidates.stop - 1)
        if all(any(ends[0] in ids and ends[1] in ids for ids in mapped) for mapped in maps):
            return candidates
    raise IdentityError(
        "this root has no other uids (see /proc/self/uid_map), and host code never runs as root; "
        "run the gateway as an ordinary user"
    )


def _mapped_ids(kind: str) -> list[range]:
    """The ids that exist in our user namespace (user_namespaces(7))."""
    lines = Path(f"/proc/self/{kind}_map").read_text().splitlines()
    triples = [[int(number) for number in line.split()] for line in lines]
    return [range(first, first + count) for first, _, count in triples]


def _running_uids() -> set[int]:
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.add(entry.stat().st_uid)
    return found


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
