"""scripts/install says what is missing; what it installs is shown by every other test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.documents import ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout without `.venv`."""
    (tmp_path / "scripts").mkdir()
    shutil.copy2(ROOT / "scripts" / "install", tmp_path / "scripts")
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _program(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _install(tree: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it with a PATH on which the interpreters are too old."""
    programs = tree / "programs"
    programs.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14", "python"):
        _program(programs, name, "exit 1")
    for name in ("bash", "dirname", "cat", "cksum", "rm"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return subprocess.run(
        [tree / "scripts" / "install", *arguments],
        env={"PATH": str(programs), **environ},
        capture_output=True,
        text=True,
    )


def test_without_a_new_enough_python_it_says_so(tree: Path) -> None:
    done = _install(tree)
    assert done.returncode != 0
    assert "needs Python >= 3.11" in done.stderr
    assert "PYTHON=" in done.stderr
    assert not (tree / ".venv").exists()


def test_the_chosen_python_must_be_new_enough(tree: Path) -> None:
    done = _install(tree, PYTHON="/nowhere/python3")
    assert done.returncode != 0
    assert "PYTHON=/nowhere/python3 is not a Python >= 3.11" in done.stderr


def test_an_unknown_extra_is_refused(tree: Path) -> None:
    done = _install(tree, "everything")
    assert done.returncode == 2
    assert "expected 'dev' or 'demo', got 'everything'" in done.stderr


def test_a_python_that_cannot_make_environments_leaves_none(tree: Path) -> None:
    """Debian has venv in a package of its own."""
    _program(tree, "python", 'case "$1" in -m) exit 1;; esac')
    done = _install(tree, PYTHON=str(tree / "python"))
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr
    assert not (tree / ".venv").exists()
