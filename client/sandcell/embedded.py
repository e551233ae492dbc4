"""Finding the embedded gateway, and starting it when it is not there.

Any number of starters may come at once: they take turns at a lock, and whoever gets
it looks again first. Blocking; asynchronous callers run it in a thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sandcell.errors import ConfigurationError, EmbeddedStartError, GatewayUnreachable
from sandcell.settings import MAX_RUNTIME_PATH, ClientSettings

SOCKET = "gateway.sock"
START_LOCK = "start.lock"
READY = b"1"
"""What the daemon writes when it listens; otherwise `0` and the reason."""
MAX_REASON = 4096
"""Most bytes of a reason that are read."""
LOCK_POLL = 0.02
"""Seconds between two attempts at the lock."""

_SCRUBBED = ("JPY_", "JUPYTERHUB_", "SANDCELL_TOKEN", "SANDCELL_URL", "SANDCELL_SESSION")
_UCRED = struct.Struct("3i")


def socket_path(settings: ClientSettings) -> Path:
    """Where the embedded gateway listens."""
    return settings.runtime_dir / SOCKET


def open_socket(path: Path, timeout: float) -> socket.socket:
    """Connect, and make sure that it is our own user (or root) who listens.

    Raises `GatewayUnreachable`, also when nobody is there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        uid = int(_UCRED.unpack(credentials)[1])
        if uid not in (0, os.getuid()):
            raise GatewayUnreachable(
                f"uid {uid} listens on {path}, not you", hint="Remove the socket and try again."
            )
        connection.setblocking(False)
    except OSError as error:
        connection.close()
        if isinstance(error, GatewayUnreachable):
            raise
        raise GatewayUnreachable(f"no embedded gateway at {path}: {error.strerror}") from error
    return connection


def running(settings: ClientSettings) -> bool:
    """Whether the embedded gateway listens."""
    try:
        open_socket(socket_path(settings), settings.connect_timeout).close()
    except GatewayUnreachable:
        return False
    return True


def ensure(settings: ClientSettings) -> Path:
    """The socket of a running embedded gateway, started if need be.

    Harmless when it runs. Raises `EmbeddedStartError` or `ConfigurationError`.
    """
    path = socket_path(settings)
    if running(settings):
        return path
    _check_directory(settings.runtime_dir)
    deadline = time.monotonic() + settings.start_timeout
    with _start_lock(settings.runtime_dir / START_LOCK, deadline):
        if not running(settings):
            _start(settings, deadline)
    if not running(settings):
        raise EmbeddedStartError(
            f"the embedded gateway started, and does not answer at {path}", hint=_look(settings)
        )
    return path


def _check_directory(path: Path) -> None:
    """Make it; its name, owner and mode must keep others out."""
    used = len(os.fsencode(path))
    if used > MAX_RUNTIME_PATH or not path.is_absolute():
        raise ConfigurationError(
            f"runtime_dir must be an absolute path of at most {MAX_RUNTIME_PATH} bytes, got {path}",
            hint="Set SANDCELL_RUNTIME_DIR to a shorter one.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigurationError(f"cannot make {path}: {error.strerror}") from error
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if not private or found.st_uid != os.getuid():
        raise ConfigurationError(
            f"{path} must be a directory of yours with mode 0700",
            hint=f"Run `chmod 700 {path}`, or set SANDCELL_RUNTIME_DIR.",
        )


@contextmanager
def _start_lock(path: Path, deadline: float) -> Generator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedStartError(
                        f"another process has been starting the embedded gateway for too long "
                        f"(it holds {path})"
                    ) from None
                time.sleep(LOCK_POLL)
        yield
    finally:
        os.close(descriptor)


def _start(settings: ClientSettings, deadline: float) -> None:
    reading, writing = os.pipe()
    try:
        try:
            # It detaches at once: the process waited for here is only the first of three.
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "sandcell_gateway",
                    "--embedded",
                    "--ready-fd",
                    f"{writing}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environ(settings),
                pass_fds=[writing],
                start_new_session=True,
                check=False,
                timeout=settings.start_timeout,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedStartError(f"cannot start the embedded gateway: {error}") from error
        finally:
            os.close(writing)
        answer = _read(reading, deadline)
    finally:
        os.close(reading)
    if answer[:1] != READY:
        reason = answer[1:].decode(errors="replace") or "it ended without a word"
        raise EmbeddedStartError(
            f"the embedded gateway did not start: {reason}", hint=_look(settings)
        )


def _read(descriptor: int, deadline: float) -> bytes:
    answer = b""
    while answer[:1] != READY and len(answer) < MAX_REASON:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return b"0it was not ready in time"
        data = os.read(descriptor, MAX_REASON)
        if not data:
            break
        answer += data
    return answer


def _environ(settings: ClientSettings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SCRUBBED)}
    # Said, so that both sides mean the same place by construction.
    return kept | {
        "SANDCELL_STATE_DIR": str(settings.state_dir),
        "SANDCELL_RUNTIME_DIR": str(settings.runtime_dir),
    }


def _look(settings: ClientSettings) -> str:
    return f"See {settings.state_dir / 'gateway.log'}, and run `sandcell doctor`."
