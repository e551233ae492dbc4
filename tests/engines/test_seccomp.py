"""The system call filter, run by an interpreter of classic BPF."""

from __future__ import annotations

import errno
import struct

import pytest

from sandcell_gateway.engines import seccomp
from sandcell_gateway.engines.base import EngineError

EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
SIGCHLD = 17


def decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would do with a call (linux/filter.h, seccomp(2))."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        opcode, yes, no, value = code[at]
        at += 1
        if opcode == 0x20:
            assert value % 4 == 0
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif opcode == 0x06:
            return value
        elif opcode in (0x15, 0x35, 0x45):
            true = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[opcode]
            at += yes if true else no
        else:
            raise AssertionError(f"opcode {opcode:#x}")


@pytest.fixture(params=seccomp.MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _call(machine: str, name: str, *arguments: int) -> int:
    known = seccomp.MACHINES[machine]
    return decide(seccomp.program(machine), known.audit, known.calls[name], *arguments)


DENIED = (
    *("keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd", "mount"),
    *("umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount"),
    *("fspick", "mount_setattr", "setns", "kexec_load", "kexec_file_load", "init_module"),
    *("finit_module", "delete_module"),
)


@pytest.mark.parametrize("name", DENIED)
def test_denied(machine: str, name: str) -> None:
    assert _call(machine, name) == EPERM


@pytest.mark.parametrize(
    "name", ["clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"]
)
def test_programs_fall_back_from(machine: str, name: str) -> None:
    assert _call(machine, name) == ENOSYS


@pytest.mark.parametrize("shift", range(32))
def test_clone_and_unshare_make_no_namespace(machine: str, shift: int) -> None:
    flag = 1 << shift
    spaces = seccomp.NAMESPACE_FLAGS & flag
    assert _call(machine, "clone", flag) == (EPERM if spaces else seccomp.ALLOW)
    spaces |= flag & seccomp.CLONE_NEWTIME
    assert _call(machine, "unshare", flag) == (EPERM if spaces else seccomp.ALLOW)


def test_processes_and_threads_may_be_made(machine: str) -> None:
    assert _call(machine, "clone", SIGCHLD) == seccomp.ALLOW
    thread = 0x3D0F00  # what pthread_create passes
    assert _call(machine, "clone", thread) == seccomp.ALLOW


def test_upper_halves_do_not_hide_a_flag(machine: str) -> None:
    """The kernel ignores the upper half of clone's flags, too."""
    assert _call(machine, "clone", 0xFFFFFFFF_00000000 | seccomp.CLONE_NEWUSER) == EPERM


@pytest.mark.parametrize("family", range(50))
def test_socket_families_are_an_allow_list(machine: str, family: int) -> None:
    allowed = family in seccomp.SOCKET_FAMILIES.values()
    refused = 0x50000 | errno.EAFNOSUPPORT
    assert _call(machine, "socket", family, 1) == (seccomp.ALLOW if allowed else refused)


def test_terminals_cannot_be_typed_into(machine: str) -> None:
    assert _call(machine, "ioctl", 0, seccomp.TIOCSTI) == EPERM
    assert _call(machine, "ioctl", 0, seccomp.TIOCLINUX) == EPERM
    tcgets = 0x5401
    assert _call(machine, "ioctl", 0, tcgets) == seccomp.ALLOW
    assert _call(machine, "ioctl", seccomp.TIOCSTI, tcgets) == seccomp.ALLOW


def test_ordinary_calls_are_allowed() -> None:
    program, audit = seccomp.program("x86_64"), seccomp.MACHINES["x86_64"].audit
    ordinary = {"read": 0, "mmap": 9, "ptrace": 101, "execve": 59, "futex": 202, "statx": 332}
    assert {decide(program, audit, number) for number in ordinary.values()} == {seccomp.ALLOW}


@pytest.mark.parametrize("arch", [0x40000003, 0xC00000B7, 0x40000028, 0])
def test_another_architecture_is_killed(arch: int) -> None:
    assert decide(seccomp.program("x86_64"), arch, 0) == seccomp.KILL_PROCESS


def test_x32_does_not_go_around_the_list() -> None:
    program, known = seccomp.program("x86_64"), seccomp.MACHINES["x86_64"]
    for number in (0, known.calls["mount"], 520):
        assert decide(program, known.audit, seccomp.X32_BIT | number) == ENOSYS


def test_every_jump_fits_and_the_program_is_small(machine: str) -> None:
    program = seccomp.program(machine)
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096  # BPF_MAXINSNS


def test_an_unknown_machine_says_so() -> None:
    with pytest.raises(EngineError, match="riscv64"):
        seccomp.program("riscv64")
