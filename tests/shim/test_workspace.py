"""A sandbox's files from outside: nothing leads out, blocks, or is seen half written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.shim.workspace import MAX_LISTED, FileRefused, Workspace
from sandcell_wire.codes import Code
from sandcell_wire.paths import parts_of

OUT = ["..", "../x", "a/../../x", "/etc/passwd", "//x", "a\0b", "x" * 256, "a/" * 2100, "\udc80"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    (tmp_path / "secret").write_text("secret")
    return path


@pytest.fixture
def files(tmp_path: Path, root: Path) -> Workspace:
    return Workspace(root, tmp_path / "staging", None)


def read(files: Workspace, path: str) -> bytes:
    with files.reading(path) as (descriptor, entry):
        return os.pread(descriptor, entry.size, 0)


def write(files: Workspace, path: str, data: bytes) -> None:
    with files.writing(path) as draft:
        draft.write(data)
        draft.keep()


@given(st.text(max_size=40) | st.text(alphabet="./ab", max_size=12))
def test_no_path_leads_out(path: str) -> None:
    try:
        parts = parts_of(path)
    except ValueError:
        return
    root = Path("/workspace")
    assert Path(os.path.normpath(root.joinpath(*parts))).is_relative_to(root)
    assert "\0" not in "".join(parts)


@pytest.mark.parametrize("path", OUT)
def test_what_cannot_be_a_path_changes_nothing(files: Workspace, root: Path, path: str) -> None:
    with pytest.raises(FileRefused) as caught:
        write(files, path, b"x")
    assert caught.value.code is Code.VALIDATION_ERROR
    for act in (read, Workspace.make_directory):
        with pytest.raises(FileRefused):
            act(files, path)
    with pytest.raises(FileRefused):
        files.remove(path, recursive=True)
    assert list(root.iterdir()) == []


def test_written_files_are_read_listed_and_removed(files: Workspace, root: Path) -> None:
    write(files, "a/b/file", b"content")
    write(files, "z", b"")
    assert read(files, "./a//b/file") == b"content"
    assert (root / "a/b/file").read_bytes() == b"content"
    found, more = files.list("", recursive=True, limit=9)
    assert [(entry.path, entry.type) for entry in found] == [
        ("a", "directory"),
        ("a/b", "directory"),
        ("a/b/file", "file"),
        ("z", "file"),
    ]
    assert not more
    found, more = files.list("", recursive=False, limit=1)
    assert ([entry.path for entry in found], more) == (["a"], True)
    with pytest.raises(FileRefused) as caught:
        files.remove("a", recursive=False)
    assert caught.value.code is Code.CONFLICT
    assert files.remove("a", recursive=True).type == "directory"
    assert [path.name for path in root.iterdir()] == ["z"]


def test_a_listing_is_bounded(files: Workspace, root: Path) -> None:
    for number in range(MAX_LISTED + 5):
        (root / f"{number:05}").touch()
    found, more = files.list("", recursive=True, limit=10**6)
    assert (len(found), more) == (MAX_LISTED, True)


@pytest.mark.parametrize("path", ["link", "dir/file", "loop/x"])
def test_links_are_never_followed(files: Workspace, root: Path, path: str) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    (root / "dir").symlink_to(root.parent)
    (root / "loop").symlink_to("loop")
    with pytest.raises(FileRefused):
        read(files, path)
    if path != "link":
        with pytest.raises(FileRefused):
            write(files, path, b"mine")
        with pytest.raises(FileRefused):
            files.list(path.split("/", maxsplit=1)[0], recursive=True, limit=9)
    assert (root.parent / "secret").read_text() == "secret"


def test_a_link_is_replaced_or_removed_and_its_target_stays(files: Workspace, root: Path) -> None:
    secret = root.parent / "secret"
    for name in ("one", "two"):
        (root / name).symlink_to(secret)
    write(files, "one", b"mine")
    assert (root / "one").read_bytes() == b"mine"
    assert files.remove("two", recursive=True).type == "link"
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (root / "tree").mkdir()
    (root / "tree" / "out").symlink_to(outside)
    files.remove("tree", recursive=True)
    assert secret.read_text() == "secret"
    assert (outside / "kept").exists()


@pytest.mark.timeout(20)
def test_a_pipe_blocks_nobody(files: Workspace, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(FileRefused) as caught:
        read(files, "pipe")
    assert caught.value.code is Code.CONFLICT
    assert files.list("", recursive=True, limit=9)[0][0].type == "other"


def test_nothing_is_seen_before_it_is_whole(files: Workspace, root: Path) -> None:
    (root / "file").write_text("old")
    with files.writing("file") as draft:
        draft.write(b"half")
        assert [path.name for path in root.rglob("*")] == ["file"]
    assert (root / "file").read_text() == "old"
    assert list((root.parent / "staging").iterdir()) == []


def test_permissions_of_a_replaced_file_are_kept(files: Workspace, root: Path) -> None:
    script = root / "script"
    script.write_text("old")
    script.chmod(0o4755)
    write(files, "script", b"new")
    write(files, "other", b"new")
    assert stat.S_IMODE(script.stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "other").stat().st_mode) == 0o644


def test_a_file_does_not_take_a_directory_s_place(files: Workspace, root: Path) -> None:
    (root / "tree" / "inner").mkdir(parents=True)
    (root / "file").touch()
    for path in ("tree", "file/below"):
        with pytest.raises(FileRefused) as caught:
            write(files, path, b"x")
        assert caught.value.code is Code.CONFLICT
    assert (root / "tree" / "inner").is_dir()


def test_the_etag_changes_with_the_content(files: Workspace) -> None:
    tags = set[str]()
    for data in (b"one", b"two"):
        write(files, "file", data)
        with files.reading("file") as (_, entry):
            tags.add(entry.etag)
    assert len(tags) == 2


def test_what_an_earlier_process_left_is_forgotten(files: Workspace, root: Path) -> None:
    staging = root.parent / "staging"
    staging.mkdir()
    (staging / "half").touch()
    files.clean()
    write(files, "file", b"x")
    assert list(staging.iterdir()) == []


@pytest.mark.root
def test_files_belong_to_the_session_s_user(tmp_path: Path, root: Path) -> None:
    os.chown(root, 54321, 54321)
    files = Workspace(root, tmp_path / "staging", 54321)
    write(files, "a/file", b"x")
    files.make_directory("a/b")
    for path in ("a", "a/b", "a/file"):
        assert (root / path).stat().st_uid == 54321
