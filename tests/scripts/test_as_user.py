"""scripts/as-user: what it decides. That it works is shown by every `make test` of root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from scripts import as_user


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def no_interpreter(monkeypatch: pytest.MonkeyPatch, as_root: None) -> None:
    monkeypatch.setattr(as_user, "find_python", lambda uid: None)


def test_without_an_interpreter_it_says_so(
    no_interpreter: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert as_user.main(["true"]) == 0
    said = capsys.readouterr().err
    assert "No Python >= 3.11 that an ordinary user can run" in said
    assert "Nothing was run" in said


def test_in_continuous_integration_that_is_a_failure(
    no_interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that tested nothing must not look green."""
    monkeypatch.setenv("CI", "true")
    assert as_user.main(["true"]) == 2


def test_an_ordinary_user_just_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert as_user.main([sys.executable, "-c", "raise SystemExit(7)"]) == 7


@pytest.mark.root
def test_an_interpreter_that_only_root_can_reach_does_not_count(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = run_directory / "private"
    private.mkdir(mode=0o700)
    program = private / "python3"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setattr(as_user, "candidates", lambda: iter([program]))
    uid = as_user.unused_uid()
    assert as_user.find_python(uid) is None
    # The same program where everybody may go is taken.
    private.chmod(0o755)
    assert as_user.find_python(uid) == program


def test_the_users_environment_holds_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDCELL_TOKEN", "secret")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    environ = as_user.user_environ(tmp_path)
    assert environ["HOME"] == str(tmp_path / "home")
    assert not {"SANDCELL_TOKEN", "XDG_RUNTIME_DIR"} & set(environ)
