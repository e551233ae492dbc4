"""Which kernel process uses which session, and who may take it over.

Front ends restart kernels by ending the process and starting another; only a note
left behind tells the successor which session it continues. A claim is one small
file, locked (flock) for as long as its process lives, so that a dead owner is
recognised without trusting pids. PROTOCOL, "Who owns a session, and what ends it".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum, StrEnum
from pathlib import Path

MAX_AGE = 86_400.0
"""Seconds after which a dead process's claim is forgotten."""
KEPT_AGE = 30 * MAX_AGE
"""The same of a session that is kept; the gateway may have closed it by then."""
MAX_CLAIMS = 10_000
"""Most claim files looked at."""


class State(StrEnum):
    """What the owner was doing when it last wrote."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """Asked to restart: the successor gets a fresh interpreter."""
    CLOSING = "closing"
    """Shut down: the session closes after the grace period unless the notebook is reopened."""
    TERMINATED = "terminated"
    """SIGTERM without a request: held for a moment, then closed."""


@dataclass(frozen=True)
class Identity:
    """How a successor is recognised."""

    connection_file: str
    """jupyter_client restarts with the same one."""
    notebook: str
    """The notebook's path as Jupyter Server tells it (JPY_SESSION_NAME); may be empty."""
    managed: bool
    """Started by jupyter_client (JPY_PARENT_PID), which restarts with the same connection file."""
    parent: int
    """The parent's pid: VS Code starts the successor from the same process."""
    directory: str
    executable: str
    gateway: str
    """Where the session lives: URL or profile; empty for the embedded gateway."""

    @classmethod
    def of_this_process(cls, connection_file: Path, environ: Mapping[str, str]) -> Identity:
        """The identity of the running kernel."""
        return cls(
            connection_file=str(connection_file.resolve()),
            notebook=environ.get("JPY_SESSION_NAME", ""),
            managed="JPY_PARENT_PID" in environ,
            parent=os.getppid(),
            directory=str(Path.cwd()),
            executable=sys.executable,
            gateway=environ.get("SANDCELL_URL", "") or environ.get("SANDCELL_PROFILE", ""),
        )


@dataclass(frozen=True)
class Claim:
    """The content of a claim file."""

    session_id: str
    identity: Identity
    state: State = State.RUNNING
    kept: bool = False
    """The session outlives its kernel, and the notebook finds it again whenever it is opened."""

    @classmethod
    def parse(cls, text: str) -> Claim:
        """Read one. Raises `ValueError`, `KeyError` or `TypeError` for another content."""
        value = json.loads(text)
        return cls(
            value["session_id"],
            Identity(**value["identity"]),
            State(value["state"]),
            value.get("kept") is True,
        )


class Takeover(Enum):
    """How a successor continues a session."""

    FRESH = "fresh"
    """Files and packages stay, the interpreter is new."""
    REATTACH = "reattach"
    """Everything stays."""


def takeover(
    claim: Claim, me: Identity, age: float, *, hold: float, grace: float
) -> Takeover | None:
    """Whether `me` may continue a dead owner's session, and how.

    `age` is the seconds since the owner was last known to live; `hold` and `grace`
    are how long a session outlives SIGTERM and a shutdown request.
    """
    other = claim.identity
    same_notebook = bool(me.notebook) and other.notebook == me.notebook
    if other.gateway != me.gateway:
        return None
    same_connection = other.connection_file == me.connection_file
    unmanaged = not (other.managed or me.managed)
    same_place = (
        unmanaged
        and age <= hold
        and (other.parent, other.directory, other.executable)
        == (me.parent, me.directory, me.executable)
    )
    if claim.state is State.CLOSING:
        found = same_notebook and (claim.kept or age <= grace)
        return Takeover.REATTACH if found else None
    if claim.state is State.RESTARTING:
        return Takeover.FRESH if same_connection else None
    if claim.state is State.TERMINATED:
        held = age <= hold and (same_connection or same_place)
        if not held and claim.kept and same_notebook:
            return Takeover.REATTACH
        return Takeover.FRESH if held else None
    return Takeover.REATTACH if same_connection or same_place or same_notebook else None


class HeldClaim:
    """Our own claim, locked until `close`."""

    def __init__(self, path: Path, descriptor: int, claim: Claim) -> None:
        self.path = path
        self._descriptor = descriptor
        self.claim = claim

    def write(self, state: State, *, kept: bool | None = None) -> None:
        """Say what we are doing, and from now on whether the session is `kept`."""
        kept = self.claim.kept if kept is None else kept
        self.claim = replace(self.claim, state=state, kept=kept)
        text = json.dumps({**asdict(self.claim), "state": state.value}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def beat(self) -> None:
        """We live: the age of a later takeover counts from here."""
        with contextlib.suppress(OSError):
            os.utime(self._descriptor)

    def close(self, *, forget: bool = False) -> None:
        """Let go; with `forget` nobody shall continue the session."""
        if forget:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


class Claims:
    """The claim files of this user."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # mkdir gives its mode to the last directory only, and the parent is private too.
        for private in (directory.parent, directory):
            private.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """One searcher at a time, so that two successors never take the same session."""
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def create(self, session_id: str, identity: Identity, *, kept: bool = False) -> HeldClaim:
        """Claim a session for this process."""
        with self._alone():
            path = self._directory / f"{session_id}.json"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Several kernels attached to one named session: the first keeps the claim.
                os.close(descriptor)
                path = self._directory / f"{session_id}.{os.getpid()}.json"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = HeldClaim(path, descriptor, Claim(session_id, identity))
            held.write(State.RUNNING, kept=kept)
            return held

    def take(self, me: Identity, *, hold: float, grace: float) -> tuple[HeldClaim, Takeover] | None:
        """Lock the claim that this process continues, if there is one.

        `write` makes it ours; closed before that, it stays as it was found.
        """
        with self._alone():
            found = None
            for path in sorted(self._directory.glob("*.json"))[:MAX_CLAIMS]:
                candidate = self._open_dead(path)
                if candidate is None:
                    continue
                held, age = candidate
                how = takeover(held.claim, me, age, hold=hold, grace=grace)
                if how is not None and (found is None or age < found[2]):
                    if found is not None:
                        found[0].close()
                    found = (held, how, age)
                else:
                    held.close(forget=age > (KEPT_AGE if held.claim.kept else MAX_AGE))
            if found is None:
                return None
            held, how, _ = found
            held.claim = replace(held.claim, identity=me)
            return held, how

    @staticmethod
    def _open_dead(path: Path) -> tuple[HeldClaim, float] | None:
        """The claim and its age in seconds, locked, if its owner is dead."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            age = max(0.0, time.time() - os.fstat(descriptor).st_mtime)
            claim = Claim.parse(os.pread(descriptor, 1 << 16, 0).decode())
        except (OSError, ValueError, KeyError, TypeError):
            os.close(descriptor)
            return None
        return HeldClaim(path, descriptor, claim), age
