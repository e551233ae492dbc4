"""The directories of one session."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandcell_gateway.paths import SESSIONS, SOCKETS
from sandcell_gateway.settings import GatewaySettings
from sandcell_gateway.shim.spec import SANDBOX_FILE, SOCKET_FILE, SPEC_FILE

KERNEL_SOCKETS = "k"
SHIM_LOG = "shim.log"
_ID_DIGITS = 16


@dataclass(frozen=True)
class Places:
    """Where one session's files are. Only `workspace` and `sockets` are the sandbox's."""

    state: Path
    runtime: Path

    @classmethod
    def of(cls, settings: GatewaySettings, session_id: str) -> Places:
        """The places of a session; nothing is made."""
        short = session_id.replace("-", "")[:_ID_DIGITS]
        return cls(
            settings.state_dir / SESSIONS / session_id, settings.runtime_dir / SOCKETS / short
        )

    @property
    def spec(self) -> Path:
        """What the shim was told."""
        return self.state / SPEC_FILE

    @property
    def sandbox(self) -> Path:
        """The engine's state; exists while there is a sandbox to adopt or end."""
        return self.state / SANDBOX_FILE

    @property
    def log(self) -> Path:
        """The shim's output."""
        return self.state / SHIM_LOG

    @property
    def socket(self) -> Path:
        """The shim's socket."""
        return self.runtime / SOCKET_FILE

    def make(self, uid: int | None) -> None:
        """Make all directories. Harmless when they exist, as after a reboot of the runtime's."""
        for path in (self.state, self.runtime):
            path.mkdir(mode=0o700, exist_ok=True)
        for name in ("env", "journal", "engine"):
            (self.state / name).mkdir(mode=0o700, exist_ok=True)
        for path in (self.state / "workspace", self.runtime / KERNEL_SOCKETS):
            path.mkdir(mode=0o700, exist_ok=True)
            if uid is not None:
                os.chown(path, uid, uid, follow_symlinks=False)

    def remove(self) -> None:
        """Delete everything, also what a cell has made unreadable. Raises `OSError`."""
        for path in (self.runtime, self.state):
            shutil.rmtree(path, onerror=_unlock)


def _unlock(function: Callable[..., Any], path: str, failure: Any) -> None:
    error = failure[1]
    if isinstance(error, FileNotFoundError):
        return
    if not isinstance(error, PermissionError):
        raise error
    # A directory without rights of its owner: give them back, then delete it again.
    # The sandbox has ended, so nobody swaps it for a link between the two steps.
    target = Path(path) if function is not os.unlink else Path(path).parent
    if not stat.S_ISDIR(target.lstat().st_mode):
        raise error
    target.chmod(0o700)
    if function is os.unlink:
        Path(path).unlink()
    elif function is os.rmdir:
        Path(path).rmdir()
    else:
        shutil.rmtree(path, onerror=_unlock)
