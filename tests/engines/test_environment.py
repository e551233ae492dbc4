"""A session's environment over an image, tried with the real interpreter."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sandcell_gateway.environment import make_environment
from sandcell_gateway.images import Image


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """One package, and one that is installed editable."""
    packages, source = tmp_path / "image-packages", tmp_path / "source"
    source.mkdir()
    packages.mkdir()
    (packages / "common.py").write_text("origin = 'image'")
    (packages / "only_image.py").write_text("")
    (packages / "only_image-1.2.dist-info").mkdir()
    (packages / "only_image-1.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: only-image\nVersion: 1.2\n"
    )
    (packages / "editable.pth").write_text(f"{source}\n")
    (source / "edited.py").write_text("")
    return replace(Image.here(), site_packages=(packages,))


def run(environment: Path, code: str) -> str:
    python = environment / "bin" / "python"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env={}, check=True)
    return done.stdout.strip()


def test_it_sees_the_image_and_shadows_it(image: Image, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    make_environment(image, environment)
    assert run(environment, "import common; print(common.origin)") == "image"
    run(environment, "import only_image, edited")
    place = Path(run(environment, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    assert place.is_relative_to(environment)
    (place / "common.py").write_text("origin = 'session'")
    assert run(environment, "import common; print(common.origin)") == "session"


def test_it_does_not_see_the_gateway_s_own_packages(image: Image, tmp_path: Path) -> None:
    make_environment(image, tmp_path / "env")
    found = run(tmp_path / "env", "import importlib.util as u; print(u.find_spec('fastapi'))")
    assert found == "None"


def test_metadata_is_read_over_both(image: Image, tmp_path: Path) -> None:
    make_environment(image, tmp_path / "env")
    code = "from importlib.metadata import version; print(version('only-image'))"
    assert run(tmp_path / "env", code) == "1.2"


def test_it_works_at_another_path(image: Image, tmp_path: Path) -> None:
    make_environment(image, tmp_path / "env")
    moved = (tmp_path / "env").rename(tmp_path / "moved")
    assert run(moved, "import sys, only_image; print(sys.prefix)") == str(moved)


def test_its_python_is_the_interpreter_s_real_file(image: Image, tmp_path: Path) -> None:
    make_environment(image, tmp_path / "env")
    assert (tmp_path / "env" / "bin" / "python").readlink() == image.python


def test_making_it_again_changes_nothing(image: Image, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    environment.mkdir(mode=0o700)  # as the gateway makes it
    make_environment(image, environment)
    (environment / "mine").write_text("kept")
    before = {path: path.lstat().st_mtime_ns for path in environment.rglob("*")}
    make_environment(image, environment)
    assert {path: path.lstat().st_mtime_ns for path in environment.rglob("*")} == before
    assert sorted(os.listdir(tmp_path)) == ["env", "image-packages", "source"]  # noqa: PTH208


def test_what_a_session_planted_is_not_touched(image: Image, tmp_path: Path) -> None:
    """A hostile session left links where we would write."""
    environment, victim = tmp_path / "env", tmp_path / "victim"
    victim.write_text("precious")
    environment.mkdir()
    (environment / "pyvenv.cfg").symlink_to(victim)
    (environment / "bin").symlink_to("/usr/bin")
    make_environment(image, environment)
    assert victim.read_text() == "precious"


def test_a_failure_leaves_nothing(image: Image, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("in the way")
    with pytest.raises(OSError):
        make_environment(image, tmp_path / "env")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".env")]


@pytest.mark.root
def test_it_belongs_to_the_session_s_user(image: Image, tmp_path: Path) -> None:
    make_environment(image, tmp_path / "env", uid=1_900_000_123)
    found = [tmp_path / "env", *(tmp_path / "env").rglob("*")]
    assert {path.lstat().st_uid for path in found} == {1_900_000_123}
    assert json.dumps(image.python.stat().st_uid) == "0"
