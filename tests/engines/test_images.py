"""What of a Python environment sandboxes see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandcell_gateway.images import Image, ImageError, refuse_whole_home


def make_base(prefix: Path, version: str = "3.12") -> Path:
    """An interpreter's own prefix."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib" / f"python{version}" / "site-packages").mkdir(parents=True)
    (prefix / "bin" / f"python{version}").write_text("#!/bin/false\n")
    (prefix / "bin" / f"python{version}").chmod(0o755)
    (prefix / "bin" / "python3").symlink_to(f"python{version}")
    return prefix


def make_venv(prefix: Path, home: Path, more: str = "", version: str = "3.12") -> Path:
    """A virtual environment as venv makes it."""
    (prefix / "lib" / f"python{version}" / "site-packages").mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to(home / "python3")
    (prefix / "pyvenv.cfg").write_text(f"Home = {home}\nversion = {version}.1\n{more}")
    return prefix


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "python")


def packages(prefix: Path) -> Path:
    return prefix / "lib" / "python3.12" / "site-packages"


def test_this_environment_is_an_image() -> None:
    image = Image.here()
    assert image.prefix == Path(sys.prefix).resolve()
    assert image.base_prefix == Path(sys.base_prefix).resolve()
    assert image.version == sys.version_info[:2]
    assert image.python.samefile(sys.executable)
    assert not image.python.is_symlink()
    assert any((place / "pytest").is_dir() for place in image.site_packages)


def test_an_environment_shows_itself_and_its_interpreter(base: Path, tmp_path: Path) -> None:
    image = Image.of_prefix(make_venv(tmp_path / "venv", base / "bin"))
    assert image.version == (3, 12)
    assert image.python == base / "bin" / "python3.12"
    assert image.base_prefix == base
    assert image.site_packages == (packages(tmp_path / "venv"),)
    assert image.roots == (base, tmp_path / "venv")
    assert image.links == ()


def test_links_on_the_way_are_kept(base: Path, tmp_path: Path) -> None:
    """As uv has them: the environment names a link to the interpreter's directory."""
    (tmp_path / "current").symlink_to("python")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link").symlink_to(tmp_path / "venv")
    make_venv(tmp_path / "venv", tmp_path / "current" / "bin")
    image = Image.of_prefix(tmp_path / "other" / "link")
    assert image.prefix == tmp_path / "venv"
    assert image.python == base / "bin" / "python3.12"
    assert set(image.links) == {
        (tmp_path / "current", "python"),
        (tmp_path / "other" / "link", str(tmp_path / "venv")),
    }
    assert image.roots == (base, tmp_path / "venv")


def test_environments_on_top_of_each_other(base: Path, tmp_path: Path) -> None:
    system = "include-system-site-packages = true\n"
    lower = make_venv(tmp_path / "lower", base / "bin", system)
    (lower / "bin" / "python3.12").symlink_to("python3")
    upper = make_venv(tmp_path / "upper", lower / "bin", system)
    image = Image.of_prefix(upper)
    assert image.site_packages == (packages(upper), packages(lower), packages(base))
    assert image.roots == (lower, base, upper)
    assert image.python == base / "bin" / "python3.12"


def test_an_environment_keeps_out_what_is_below_it(base: Path, tmp_path: Path) -> None:
    lower = make_venv(tmp_path / "lower", base / "bin", "include-system-site-packages = true\n")
    upper = make_venv(tmp_path / "upper", lower / "bin")
    assert Image.of_prefix(upper).site_packages == (packages(upper),)


def test_an_interpreter_s_own_prefix_is_an_image(base: Path) -> None:
    image = Image.of_prefix(base)
    assert image.prefix == image.base_prefix == base
    assert image.site_packages == (packages(base),)
    assert image.roots == (base,)


def test_an_interpreter_in_a_store_shows_the_store() -> None:
    from sandcell_gateway import images

    store = Path("/nix/store/abc-python3/bin/python3.12")
    assert images._root_of(store, store) == Path("/nix/store")


def test_configuration_is_masked(base: Path, tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "venv", base / "bin")
    for path in (venv / "pip.conf", venv / ".env", base / "uv.toml"):
        path.write_text("secret")
    assert set(Image.of_prefix(venv).masks) == {venv / "pip.conf", venv / ".env", base / "uv.toml"}


def test_nothing_of_the_image_is_executed(base: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    (base / "bin" / "python3.12").write_text(f"#!/bin/sh\ntouch {trace}\n")
    venv = make_venv(tmp_path / "venv", base / "bin")
    (packages(venv) / "bad.pth").write_text(f"import os; os.mkdir({str(trace)!r})\n")
    Image.of_prefix(venv)
    assert not trace.exists()


@pytest.mark.parametrize("path", ["/", "/home", "/root", "/tmp", "/var", "/etc"])
def test_whole_trees_are_refused(path: str) -> None:
    with pytest.raises(ImageError, match="every session would see all files"):
        refuse_whole_home(Path(path))


def test_a_home_is_refused_and_an_environment_in_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    make_base(tmp_path / "me")
    with pytest.raises(ImageError, match="virtual environment"):
        Image.of_prefix(tmp_path / "me")
    with pytest.raises(ImageError):
        refuse_whole_home(tmp_path)
    venv = make_venv(tmp_path / "me" / "venv", make_base(tmp_path / "python") / "bin")
    assert Image.of_prefix(venv).prefix == venv


def test_the_system_s_python_shows_usr_and_not_everything() -> None:
    if not Path("/usr/bin/python3").exists():
        pytest.skip("the system has no Python")
    image = Image.of_prefix(Path("/usr"))
    assert image.base_prefix == Path("/usr")
    assert all(root.is_relative_to("/usr") for root in image.roots)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda base, venv: None, "there is no Python environment"),
        (lambda base, venv: make_venv(venv, base / "nowhere"), "which does not exist"),
        (lambda base, venv: venv.mkdir(), "there is no Python interpreter"),
        (lambda base, venv: make_venv(venv, venv / "bin"), "stands on more than"),
    ],
)
def test_what_is_no_environment_is_refused_with_the_reason(
    base: Path, tmp_path: Path, prepare: object, message: str
) -> None:
    assert callable(prepare)
    prepare(base, tmp_path / "venv")
    with pytest.raises(ImageError, match=message):
        Image.of_prefix(tmp_path / "venv")
