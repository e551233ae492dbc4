"""The leak check must find what it exists for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.home import make_home
from tests.support.processes import end_all, processes_of

SLEEP = "import time; time.sleep(60)"


def _detached(environ: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SLEEP, *arguments], env=environ, start_new_session=True
    )


def test_a_process_is_found_by_its_environment(tmp_path: Path) -> None:
    """A daemon that changed its directory and closed its files still carries the environment."""
    process = _detached({"SANDCELL_STATE_DIR": f"{tmp_path}/state"})
    assert [found.pid for found in processes_of(tmp_path)] == [process.pid]
    assert end_all(tmp_path, patience=0)
    assert process.wait() == -9


def test_a_process_is_found_by_its_arguments(tmp_path: Path) -> None:
    process = _detached({}, f"{tmp_path}/spec.json")
    assert f"{tmp_path}/spec.json" in end_all(tmp_path, patience=0)[0]
    assert process.wait() == -9


def test_a_home_with_a_leak_fails_and_is_removed(run_directory: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    with (
        pytest.raises(AssertionError, match="left these processes"),
        make_home(run_directory, patience=0) as home,
    ):
        started.append(_detached(home.environ))
    assert started[0].wait() == -9
    assert not home.path.exists()


def test_a_tidy_home_passes(run_directory: Path) -> None:
    with make_home(run_directory) as home:
        subprocess.run([sys.executable, "-c", ""], env=home.environ, check=True)
