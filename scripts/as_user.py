"""Run a command in a copy of this repository as an ordinary user: scripts/as-user COMMAND…

Isolation is another matter for root than for everybody else, so continuous
integration, which is often root, runs those tests a second time with this. The
interpreter of `.venv` may lie where nobody else can go (/root, mode 0700); then a
system interpreter makes the copy's environment. Without one this fails when CI is
set, and otherwise says that it did nothing. Started by an ordinary user it just
runs the command here. The exit code is the command's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
UIDS = range(63000, 63100)
"""Where an unused uid is looked for; sessions take theirs elsewhere."""
PLACES = ("/usr/local/bin", "/usr/bin", "/opt/python/bin")
"""Where systems keep interpreters that everybody may run."""
NAMES = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
CHECK_SECONDS = 30
"""How long an interpreter may take to tell its version."""
PROBE = "import sys, venv; sys.exit(sys.version_info < (3, 11))"


def unused_uid() -> int:
    """A uid with no account and no process. Raises `LookupError` when all are taken."""
    taken = {account.pw_uid for account in pwd.getpwall()}
    taken |= {process.info["uids"].real for process in psutil.process_iter(["uids"])}
    for uid in UIDS:
        if uid not in taken:
            return uid
    raise LookupError(f"every uid from {UIDS.start} to {UIDS.stop - 1} is in use")


def candidates() -> Iterator[Path]:
    """Interpreters that may do, the one of `.venv` first."""
    yield Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for place in PLACES:
        for name in NAMES:
            yield Path(place, name)


def find_python(uid: int) -> Path | None:
    """An interpreter of Python 3.11 or newer that `uid` can execute."""
    for candidate in candidates():
        if not candidate.exists():
            continue
        try:
            probe = subprocess.run(
                [candidate, "-c", PROBE],
                user=uid,
                group=uid,
                extra_groups=[],
                cwd="/",
                env={},
                capture_output=True,
                timeout=CHECK_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if probe.returncode == 0:
            return candidate
    return None


def copy_sources(target: Path) -> None:
    """Everything git knows or would add, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def install(repository: Path, python: Path) -> None:
    """Make the copy's `.venv`. Its files are copies: hard links would lead into root's cache."""
    uv = ROOT / ".venv" / "bin" / "uv"
    environ = os.environ | {"UV_LINK_MODE": "copy", "UV_SYSTEM_CERTS": "true"}
    environ.pop("VIRTUAL_ENV", None)
    venv = repository / ".venv"
    subprocess.run([uv, "venv", "--quiet", "--python", python, venv], check=True, env=environ)
    subprocess.run(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--python",
            venv / "bin" / "python",
            "-e",
            ".[dev]",
        ],
        check=True,
        env=environ,
        cwd=repository,
    )


def give_to(uid: int, directory: Path) -> None:
    """Make `uid` the owner of everything below `directory`."""
    for parent, directories, files in os.walk(directory):
        for name in (".", *directories, *files):
            os.chown(Path(parent, name), uid, uid, follow_symlinks=False)


def user_environ(base: Path) -> dict[str, str]:
    """What a plain login would have, and whether this is continuous integration."""
    environ = {
        "HOME": str(base / "home"),
        "USER": "sandcell",
        "LOGNAME": "sandcell",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        # pytest's own default below /tmp may belong to an earlier run's user
        "PYTEST_DEBUG_TEMPROOT": str(base / "tmp"),
    }
    kept = ("CI", "TERM", "TEST_PROCESSES", "NO_COLOR", "FORCE_COLOR")
    return environ | {name: os.environ[name] for name in kept if name in os.environ}


def end_processes(uid: int) -> None:
    """Kill what the command left behind; nobody else uses this uid."""
    for process in psutil.process_iter(["uids"]):
        if process.info["uids"].real == uid:
            process.send_signal(signal.SIGKILL)


def run_as(uid: int, python: Path, command: list[str]) -> int:
    """Copy, install and run; the command's exit code."""
    base = Path(tempfile.mkdtemp(prefix="sandcell-user-", dir="/tmp"))
    base.chmod(0o755)
    try:
        repository = base / "repository"
        for directory in (repository, base / "home", base / "tmp"):
            directory.mkdir()
        copy_sources(repository)
        install(repository, python)
        give_to(uid, base)
        print(f"$ {' '.join(command)}   (uid {uid}, {python})", flush=True)
        return subprocess.run(
            command,
            user=uid,
            group=uid,
            extra_groups=[],
            umask=0o022,
            cwd=repository,
            env=user_environ(base),
            check=False,
        ).returncode
    finally:
        end_processes(uid)
        shutil.rmtree(base, ignore_errors=True)


def main(command: list[str]) -> int:
    """The exit code of `command`, or 2 when it could not be run."""
    if not command:
        print("usage: scripts/as-user COMMAND [ARGUMENT…]", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    uid = unused_uid()
    python = find_python(uid)
    if python is not None:
        return run_as(uid, python, command)
    print(
        "No Python >= 3.11 that an ordinary user can run was found: "
        f"looked at the interpreter of .venv and in {', '.join(PLACES)}.\n"
        "Install one (Debian: apt install python3), or run this as an ordinary user.",
        file=sys.stderr,
    )
    if os.environ.get("CI"):
        return 2
    print("Nothing was run.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
