"""Private directories, locks and the names of the gateway's own files."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from sandcell_gateway.settings import GatewaySettings, SettingsError

DATABASE = "gateway.db"
TOKEN = "token"  # noqa: S105 (a file's name)
LOG = "gateway.log"
SESSIONS = "sessions"
SOCKET = "gateway.sock"
LOCK = "gateway.lock"
SOCKETS = "s"

LOCK_POLL = 0.02
"""Seconds between two attempts at a lock that another process holds."""


class Locked(Exception):
    """Another gateway holds the lock."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"another gateway uses {path.parent}; stop it, or set SANDCELL_STATE_DIR and "
            "SANDCELL_RUNTIME_DIR to directories of this gateway's own"
        )
        self.path = path


def private_directory(path: Path) -> Path:
    """Make or check a directory that only we can enter or replace.

    Raises `SettingsError` when it is a link, somebody else's, open to others, or
    lies in a directory where another user could rename it.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise SettingsError(f"cannot make {path}: {error.strerror}") from error
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise SettingsError(f"{path} must be a directory, and not a link to one")
    if found.st_uid != os.getuid():
        raise SettingsError(f"{path} belongs to uid {found.st_uid}, not to us ({os.getuid()})")
    if found.st_mode & 0o077:
        raise SettingsError(f"{path} is open to other users; run `chmod 700 {path}`")
    parent = path.parent.stat()
    writable = parent.st_mode & 0o022 and not parent.st_mode & stat.S_ISVTX
    if writable or parent.st_uid not in (0, os.getuid()):
        raise SettingsError(f"{path.parent} lets other users replace {path.name} in it")
    return path


def prepare(settings: GatewaySettings) -> None:
    """Make the gateway's directories. Harmless when they exist."""
    private_directory(settings.state_dir)
    private_directory(settings.runtime_dir)
    for path in (settings.state_dir / SESSIONS, settings.runtime_dir / SOCKETS):
        path.mkdir(mode=0o700, exist_ok=True)


class GatewayLock:
    """The right to use the state and runtime directories, held for life.

    Two flocks rather than pid files: the kernel drops them however we die.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._paths = (settings.state_dir / LOCK, settings.runtime_dir / LOCK)
        self._held: list[int] = []

    def acquire(self, timeout: float) -> None:
        """Take both. Raises `Locked` when that takes longer than `timeout` seconds."""
        deadline = time.monotonic() + timeout
        try:
            for path in self._paths:
                self._held.append(_flock(path, deadline))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give both back. Harmless when they are not held."""
        while self._held:
            os.close(self._held.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _flock(path: Path, deadline: float) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise Locked(path) from None
            time.sleep(LOCK_POLL)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return descriptor
