"""A user of sandcell for one test: own home, state and runtime directories, own environment."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import END_SECONDS, end_all

FOREIGN = ("SANDCELL_", "JPY_", "JUPYTER", "XDG_", "IPYTHON", "MPL")
"""Variables with these beginnings are the tester's own and stay out of tests."""


@dataclass(frozen=True)
class Home:
    """Where one test's user keeps things, and the environment that says so."""

    path: Path
    """HOME, empty and short: Unix socket paths below it must stay under 80 bytes."""
    state: Path
    """SANDCELL_STATE_DIR; made by whoever needs it."""
    runtime: Path
    """SANDCELL_RUNTIME_DIR; made by whoever needs it."""
    environ: dict[str, str]
    """Complete environment for subprocesses."""


def make_run_directory() -> Path:
    """A short directory for all homes of one pytest process."""
    run = Path(tempfile.mkdtemp(prefix="sc-", dir="/tmp"))
    run.chmod(0o755)  # the users of sandboxes must be able to pass
    return run


def _environ(path: Path, state: Path, runtime: Path) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return environ | {
        "HOME": str(path),
        "SANDCELL_STATE_DIR": str(state),
        "SANDCELL_RUNTIME_DIR": str(runtime),
        "SANDCELL_CLOSE_GRACE": "0",
    }


@contextmanager
def make_home(run: Path, patience: float = END_SECONDS) -> Iterator[Home]:
    """A new home below `run`. Its processes have `patience` seconds to end after it.

    Raises `AssertionError` naming those that were left; they are killed first.
    """
    base = Path(tempfile.mkdtemp(prefix="", dir=run))
    base.chmod(0o755)
    path, state, runtime = base / "h", base / "s", base / "r"
    path.mkdir()
    try:
        yield Home(path, state, runtime, _environ(path, state, runtime))
        left = end_all(base, patience)
    finally:
        end_all(base, patience=0)
        shutil.rmtree(base, ignore_errors=True)
    if left:
        raise AssertionError("the test left these processes running:\n  " + "\n  ".join(left))
