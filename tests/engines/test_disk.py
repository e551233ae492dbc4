"""Counting hostile trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandcell_gateway.engines import disk
from sandcell_gateway.engines.disk import measure


def test_files_and_directories_count_with_what_they_take(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "data").write_bytes(bytes(1 << 20))
    found = measure(tmp_path)
    assert found.complete
    assert found.files == 3
    assert 1 << 20 <= found.bytes < 2 << 20


def test_several_trees_are_added(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_bytes(bytes(1 << 20))
    assert measure(tmp_path / "one", tmp_path / "two").files == 2
    assert measure(tmp_path / "one", tmp_path / "missing").files == 1


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(1 << 20))
    os.link(tmp_path / "data", tmp_path / "again")
    assert measure(tmp_path).bytes < 2 << 20


def test_a_hole_takes_nothing(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert measure(tmp_path).bytes < 1 << 20


def test_links_and_special_files_are_not_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "data").write_bytes(bytes(1 << 20))
    (inside / "link").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    os.mkfifo(inside / "fifo")
    found = measure(inside)
    assert (found.files, found.complete) == (3, True)
    assert found.bytes < 1 << 20


def test_a_root_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(1 << 20))
    (tmp_path / "link").symlink_to(tmp_path)
    assert measure(tmp_path / "link").files == 0


def test_nesting_without_end_ends_the_count_and_says_so(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(disk.MAX_DEPTH + 10):
        os.mkdir("d", dir_fd=descriptor)
        child = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = child
    os.close(descriptor)
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = measure(tmp_path)
    assert not found.complete
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_files_without_end_end_the_count_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (tmp_path / f"{number}").touch()
    monkeypatch.setattr(disk, "MAX_FILES", 20)
    found = measure(tmp_path)
    assert (found.files, found.complete) == (20, False)
