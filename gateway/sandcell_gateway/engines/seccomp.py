"""The system calls that no sandbox needs and that attack the host's kernel: a BPF program.

A deny list (ISOLATION, "Users and privileges"), made for x86_64 and aarch64
without a library: classic BPF is eight bytes an instruction (seccomp(2),
linux/filter.h). Calls that programs probe for and can do without get ENOSYS, so
that they fall back; the others get EPERM. A call made for another architecture,
which would mean another list, ends the process.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from sandcell_gateway.engines.base import EngineError

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

CLONE_NEWUSER = 0x10000000
NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET (sched.h)."""
CLONE_NEWTIME = 0x80
"""Only for `unshare`: in `clone` the bit belongs to the exit signal."""
X32_BIT = 0x40000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
"""Put characters into a terminal's input, as if typed."""
SOCKET_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
"""All others are refused. AF_VSOCK reaches the machine's hypervisor past any network
namespace; AF_ALG and the rare protocols are seldom used and often broken."""

_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""
_LOAD, _RETURN, _AND = 0x20, 0x06, 0x54
_JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT = 0x15, 0x35, 0x45


@dataclass(frozen=True)
class Machine:
    """One architecture's numbers."""

    audit: int
    """AUDIT_ARCH_* of linux/audit.h."""
    calls: dict[str, int]


# Numbers above 423 are the same everywhere (asm-generic/unistd.h).
_COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        _COMMON
        | {
            "ioctl": 16,
            "socket": 41,
            "clone": 56,
            "syslog": 103,
            "uselib": 134,
            "pivot_root": 155,
            "chroot": 161,
            "acct": 163,
            "settimeofday": 164,
            "mount": 165,
            "umount2": 166,
            "swapon": 167,
            "swapoff": 168,
            "reboot": 169,
            "iopl": 172,
            "ioperm": 173,
            "create_module": 174,
            "init_module": 175,
            "delete_module": 176,
            "quotactl": 179,
            "nfsservctl": 180,
            "lookup_dcookie": 212,
            "clock_settime": 227,
            "kexec_load": 246,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "unshare": 272,
            "perf_event_open": 298,
            "fanotify_init": 300,
            "open_by_handle_at": 304,
            "setns": 308,
            "finit_module": 313,
            "kexec_file_load": 320,
            "bpf": 321,
            "userfaultfd": 323,
        },
    ),
    "aarch64": Machine(
        0xC00000B7,
        _COMMON
        | {
            "lookup_dcookie": 18,
            "ioctl": 29,
            "umount2": 39,
            "mount": 40,
            "pivot_root": 41,
            "nfsservctl": 42,
            "chroot": 51,
            "quotactl": 60,
            "acct": 89,
            "unshare": 97,
            "kexec_load": 104,
            "init_module": 105,
            "delete_module": 106,
            "clock_settime": 112,
            "syslog": 116,
            "reboot": 142,
            "settimeofday": 170,
            "socket": 198,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "clone": 220,
            "swapon": 224,
            "swapoff": 225,
            "perf_event_open": 241,
            "fanotify_init": 262,
            "open_by_handle_at": 265,
            "setns": 268,
            "finit_module": 273,
            "bpf": 280,
            "userfaultfd": 282,
            "kexec_file_load": 294,
        },
    ),
}
_ENOSYS = {"io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"}
"""`clone3` takes its flags by pointer, which BPF cannot follow; libc falls back to `clone`."""
_BY_ARGUMENT = {"clone", "unshare", "ioctl", "socket"}


@dataclass
class _Program:
    instructions: list[bytes] = field(default_factory=list[bytes])

    def add(self, code: int, value: int, yes: int = 0, no: int = 0) -> None:
        self.instructions.append(struct.pack("=HBBI", code, yes, no, value))

    def deny(self, number: int, error: int) -> None:
        self.add(_JUMP_EQUAL, number, 0, 1)
        self.add(_RETURN, _ERRNO | error)

    def deny_flags(self, number: int, mask: int) -> None:
        """If the first argument has any bit of the mask."""
        self.add(_JUMP_EQUAL, number, 0, 4)
        self.add(_LOAD, _ARGUMENTS)
        self.add(_JUMP_ANY_BIT, mask, 0, 1)
        self.add(_RETURN, _ERRNO | errno.EPERM)
        self.add(_RETURN, ALLOW)

    def deny_values(self, number: int, argument: int, values: Iterable[int]) -> None:
        """If that argument is one of the values."""
        values = list(values)
        self.add(_JUMP_EQUAL, number, 0, len(values) + 3)
        self.add(_LOAD, _ARGUMENTS + 8 * argument)
        for index, value in enumerate(values):
            self.add(_JUMP_EQUAL, value, len(values) - index, 0)
        self.add(_RETURN, ALLOW)
        self.add(_RETURN, _ERRNO | errno.EPERM)

    def allow_values(self, number: int, argument: int, values: Iterable[int], error: int) -> None:
        """Only if that argument is one of the values."""
        values = list(values)
        self.add(_JUMP_EQUAL, number, 0, len(values) + 3)
        self.add(_LOAD, _ARGUMENTS + 8 * argument)
        for index, value in enumerate(values):
            self.add(_JUMP_EQUAL, value, len(values) - index, 0)
        self.add(_RETURN, _ERRNO | error)
        self.add(_RETURN, ALLOW)


def program(machine: str | None = None) -> bytes:
    """The filter for a machine as `uname -m` names it; this one by default.

    Raises `EngineError` for an architecture whose numbers are not known.
    """
    name = machine or platform.machine()
    known = MACHINES.get(name)
    if known is None:
        raise EngineError(
            f"there is no system call filter for {name} (only for {', '.join(MACHINES)}); "
            "use the process engine if you need no isolation"
        )
    calls, made = known.calls, _Program()
    made.add(_LOAD, _ARCH)
    made.add(_JUMP_EQUAL, known.audit, 1, 0)
    made.add(_RETURN, KILL_PROCESS)
    made.add(_LOAD, _NUMBER)
    if name == "x86_64":
        made.add(_JUMP_AT_LEAST, X32_BIT, 0, 1)
        made.add(_RETURN, _ERRNO | errno.ENOSYS)
    for call, number in calls.items():
        if call not in _BY_ARGUMENT:
            made.deny(number, errno.ENOSYS if call in _ENOSYS else errno.EPERM)
    made.deny_flags(calls["clone"], NAMESPACE_FLAGS)
    made.deny_flags(calls["unshare"], NAMESPACE_FLAGS | CLONE_NEWTIME)
    made.deny_values(calls["ioctl"], 1, (TIOCSTI, TIOCLINUX))
    made.allow_values(calls["socket"], 0, SOCKET_FAMILIES.values(), errno.EAFNOSUPPORT)
    made.add(_RETURN, ALLOW)
    return b"".join(made.instructions)
