"""What a bubblewrap sandbox is made of: a list of operations, in the order they are done.

The list is pure data. It builds bwrap's arguments and describes itself for people,
so a dry run costs nothing: `print(plan.describe())`.

Rules it follows (ISOLATION): nothing of the host is visible but the system's
software, the image, and the session's own three directories; every directory that
can be written has a size or belongs to the session; the root is read-only.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sandcell_gateway.engines.base import InsidePaths, SandboxSpec
from sandcell_gateway.images import Image

WORKSPACE, ENVIRONMENT, SOCKETS, PROGRAMS = (
    "/workspace",
    "/opt/env",
    "/run/sandcell",
    "/opt/sandcell",
)
USER, HOSTNAME = "sandbox", "sandbox"
USER_ID = 1000
"""Who the session is inside its user namespace; whoever it is outside."""
ROOT_BYTES = 16 << 20
"""Size of the root file system: mount points and a few small files."""

SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""On most systems links into /usr, on others directories of their own."""
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/crypto-policies/back-ends",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/fonts",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/protocols",
    "/etc/services",
    "/etc/terminfo",
    "/var/cache/fontconfig",
)
"""Software's configuration; no names of users, hosts or networks. Those that exist are shown."""

_AS_USER = (
    ("--unshare-all", "--unshare-user", "--disable-userns"),
    ("--uid", str(USER_ID), "--gid", str(USER_ID)),
)
_AS_ROOT = (
    ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
    # What `agent.become` needs to give up everything, these included.
    ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"),
)

MASKED = ("/proc/keys", "/proc/key-users")
"""What the kernel shows of the user's keyrings; their calls are filtered, these would remain."""

FileDescriptors = Callable[[bytes], int]
"""Gives a descriptor from which bwrap reads these bytes."""


class Operation(ABC):
    """One step of making a sandbox."""

    @abstractmethod
    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        """For bwrap."""

    @abstractmethod
    def describe(self) -> str:
        """For people."""


class Place(Operation):
    """A step that makes a path."""

    target: str

    @property
    def fills(self) -> bool:
        """Whether what is below the path comes with it, so that nothing has to be made there."""
        return False


@dataclass(frozen=True)
class Flags(Operation):
    """Options about the sandbox as a whole."""

    why: str
    options: tuple[str, ...]

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        return list(self.options)

    def describe(self) -> str:
        return f"{self.why}: {shlex.join(self.options)}"


@dataclass(frozen=True)
class Show(Place):
    """Show a directory or file of the host."""

    source: str
    target: str
    writable: bool = False
    optional: bool = False
    """Not an error when the host has none."""

    @property
    def fills(self) -> bool:
        return True

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        option = "--bind" if self.writable else "--ro-bind"
        return [option + ("-try" if self.optional else ""), self.source, self.target]

    def describe(self) -> str:
        place = self.target if self.source == self.target else f"{self.target} (from {self.source})"
        mode = "writable" if self.writable else "read-only"
        return f"show {place} {mode}{', if there is one' if self.optional else ''}"


@dataclass(frozen=True)
class Directory(Place):
    """A directory of the root that everybody may pass through."""

    target: str

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        return ["--perms", "0755", "--dir", self.target]

    def describe(self) -> str:
        return f"make the directory {self.target}"


@dataclass(frozen=True)
class Private(Place):
    """A new, empty file system in memory."""

    target: str
    size: int
    """Bytes; 0 leaves it to the kernel (half of the memory)."""
    mode: str = "0755"

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        size = ["--size", str(self.size)] if self.size else []
        return ["--perms", self.mode, *size, "--tmpfs", self.target]

    def describe(self) -> str:
        return f"make {self.target} private, {self.size or 'unbounded'} bytes, mode {self.mode}"


@dataclass(frozen=True)
class Kernel(Place):
    """A file system of the kernel's: `/proc`, or a minimal `/dev`."""

    target: str

    @property
    def fills(self) -> bool:
        return True

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        return [f"-{self.target}".replace("/", "-"), self.target]

    def describe(self) -> str:
        return f"make an own {self.target}"


@dataclass(frozen=True)
class Content(Place):
    """A small file with given content."""

    target: str
    data: bytes
    over: bool = False
    """Covers a file that a shown directory has; otherwise it is a file of the root."""

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        option = "--ro-bind-data" if self.over else "--file"
        return ["--perms", "0444", option, str(descriptor(self.data)), self.target]

    def describe(self) -> str:
        return f"{'cover' if self.over else 'write'} {self.target} ({len(self.data)} bytes)"


@dataclass(frozen=True)
class Link(Place):
    """A symbolic link."""

    target: str
    to: str

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        return ["--symlink", self.to, self.target]

    def describe(self) -> str:
        return f"link {self.target} to {self.to}"


@dataclass(frozen=True)
class Filter(Operation):
    """The system call filter."""

    program: bytes

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        return ["--seccomp", str(descriptor(self.program))]

    def describe(self) -> str:
        return f"filter system calls ({len(self.program) // 8} instructions)"


@dataclass(frozen=True)
class Plan:
    """A whole sandbox and the program that starts in it."""

    operations: tuple[Operation, ...]
    command: tuple[str, ...]

    def arguments(self, descriptor: FileDescriptors) -> list[str]:
        """All of bwrap's arguments but the command."""
        return [word for operation in self.operations for word in operation.arguments(descriptor)]

    def describe(self) -> str:
        """One line an operation."""
        lines = [operation.describe() for operation in self.operations]
        return "\n".join([*lines, f"run {shlex.join(self.command)}"])


def inside_paths() -> InsidePaths:
    """Where things are in every sandbox of this kind."""
    return InsidePaths(
        workspace=WORKSPACE,
        environment=ENVIRONMENT,
        sockets=SOCKETS,
        programs=PROGRAMS,
        python=f"{ENVIRONMENT}/bin/python",
    )


def make_plan(
    spec: SandboxSpec,
    command: Sequence[str],
    *,
    programs: Mapping[str, bytes],
    system: Sequence[Operation],
    program: bytes,
) -> Plan:
    """The plan for a sandbox.

    `programs` are our files by name, `system` comes from `system_operations`, and
    `program` is the system call filter. A spec with a uid is for a gateway run by
    root: no user namespace, so that the host's root has no counterpart inside, and
    the command must give up its rights by itself (`agent.become`).
    """
    operations = [
        *_namespaces(spec.uid),
        Private("/", ROOT_BYTES),
        # Before the image, which may lie in a /tmp that they would hide.
        *_private(spec),
        *system,
        *_etc(USER_ID if spec.uid is None else spec.uid),
        *_image(spec.image),
        *(Content(f"{PROGRAMS}/{name}", data) for name, data in programs.items()),
        Show(str(spec.environment), ENVIRONMENT, writable=True),
        Show(str(spec.workspace), WORKSPACE, writable=True),
        Show(str(spec.sockets), SOCKETS, writable=True),
        Flags("close the root and /dev", ("--remount-ro", "/dev", "--remount-ro", "/")),
        Filter(program),
        # Not in the workspace: a root without capabilities may not enter it.
        Flags("start in the root", ("--chdir", "/")),
    ]
    return Plan(tuple(_with_parents(operations)), tuple(command))


def _with_parents(operations: Sequence[Operation]) -> Iterator[Operation]:
    """Make the directories on the way first: bwrap would make some that only root can enter."""
    made: set[PurePosixPath] = {PurePosixPath("/")}
    filled: set[PurePosixPath] = set()
    for operation in operations:
        if not isinstance(operation, Place):
            yield operation
            continue
        path = PurePosixPath(operation.target)
        for parent in reversed(path.parents):
            if parent not in made and not filled.intersection((parent, *parent.parents)):
                made.add(parent)
                yield Directory(str(parent))
        made.add(path)
        if operation.fills:
            filled.add(path)
        yield operation


def system_operations(root: Path = Path("/")) -> list[Operation]:
    """The system's software as this host has it; the only part that looks at the host."""
    found: list[Operation] = [Show("/usr", "/usr")]
    for name in SYSTEM_LINKS:
        path = root / name
        if path.is_symlink():
            found.append(Link(f"/{name}", str(path.readlink())))
        elif path.is_dir():
            found.append(Show(f"/{name}", f"/{name}"))
    found += [Content(path, b"", over=True) for path in MASKED if (root / path[1:]).exists()]
    return [*found, *(Show(path, path, optional=True) for path in SYSTEM_FILES)]


def _namespaces(uid: int | None) -> list[Operation]:
    namespaces, identity = _AS_USER if uid is None else _AS_ROOT
    return [
        Flags("own namespaces", (*namespaces, "--hostname", HOSTNAME)),
        Flags("identity", ("--cap-drop", "ALL", *identity)),
        # As PID 1 the agent takes all other processes with it, and they cannot kill it.
        Flags("the agent is the first process", ("--as-pid-1", "--new-session", "--clearenv")),
    ]


def _etc(uid: int) -> list[Operation]:
    passwd = (
        f"{USER}:x:{uid}:{uid}:Sandbox:{WORKSPACE}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    return [
        Content("/etc/passwd", passwd.encode()),
        Content("/etc/group", f"{USER}:x:{uid}:\nnogroup:x:65534:\n".encode()),
        Content("/etc/hosts", f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n".encode()),
        Content("/etc/hostname", f"{HOSTNAME}\n".encode()),
        Content("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files\n"),
    ]


def _image(image: Image) -> list[Operation]:
    shown = ["/usr", *(f"/{name}" for name in SYSTEM_LINKS)]
    extra = [root for root in image.roots if not any(root.is_relative_to(top) for top in shown)]
    links = [(path, to) for path, to in image.links if str(path) not in shown]
    return [
        *(Show(str(root), str(root)) for root in extra),
        *(Link(str(path), to) for path, to in links),
        *(Content(str(path), b"", over=True) for path in image.masks),
    ]


def _private(spec: SandboxSpec) -> list[Operation]:
    size = spec.limits.tmp_bytes
    return [
        Kernel("/proc"),
        Kernel("/dev"),
        Private("/dev/shm", size, "1777"),  # noqa: S108 (its own)
        Private("/tmp", size, "1777"),  # noqa: S108 (its own)
        Link("/var/tmp", "../tmp"),  # noqa: S108 (its own)
    ]
