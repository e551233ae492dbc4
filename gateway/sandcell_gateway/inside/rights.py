"""What the agent gives up before anything of the session runs, and bounds for what it starts.

Standard library only, as `agent.py`, which is the only one to use it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct

TYPE_CHECKING = False  # importing typing takes time, too
if TYPE_CHECKING:
    import ctypes
    from typing import Any

    Json = dict[str, Any]


class RightsError(Exception):
    """Rights that should be gone are not; says which."""


PR_SET_DUMPABLE, _PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 4, 24, 36
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3, _CLONE_NEWUSER = 0x20080522, 0x10000000
_CAPABILITIES = 64
"""More than any kernel has; those it does not know it refuses with EINVAL."""


def libc() -> ctypes.CDLL:
    """The C library, with `errno` (ctypes takes long to import, so not before)."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def become(uid: int) -> None:
    """Take an unprivileged identity for ever. Raises `OSError`."""
    call = libc()
    for capability in range(_CAPABILITIES):
        call.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    call.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    # The inheritable set survives the change of uid (capabilities(7)).
    call.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
    call.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def check_locked() -> None:
    """Make sure that nothing is left to give up, whatever did the work. Raises `RightsError`."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    wrong = [f"{name} is {status[name]}" for name in status if _is_wrong(name, status[name])]
    if wrong:
        raise RightsError(f"the sandbox would keep rights: {', '.join(wrong)}")


def _is_wrong(name: str, value: str) -> bool:
    if name in ("Uid", "Gid"):
        return "0" in value.split()
    if name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        return int(value, 16) != 0
    return {"NoNewPrivs": "1", "Seccomp": "2"}.get(name, value) != value


def check_refused() -> None:
    """Make sure that ways back to rights are closed. Raises `RightsError`."""
    if libc().unshare(_CLONE_NEWUSER) == 0:
        raise RightsError("the sandbox may make a user namespace, and has all rights in it")
    with contextlib.suppress(OSError):
        os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
        raise RightsError("the sandbox may write to /proc/sys")


_LIMITS = {
    "processes": resource.RLIMIT_NPROC,
    "open_files": resource.RLIMIT_NOFILE,
    "file_bytes": resource.RLIMIT_FSIZE,
    "data_bytes": resource.RLIMIT_DATA,
}


def limit(limits: Json) -> None:
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
