"""What `files=` may hold."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from sandcell.errors import RequestInvalid
from sandcell.uploads import Upload, uploads


class PandasFrame:
    """As pandas writes: `to_csv` with an index unless told otherwise."""

    def to_csv(self, *, index: bool = True) -> str:
        return "i,a\n0,1\n" if index else "a\n1\n"

    def to_parquet(self, target: io.BytesIO) -> None:
        target.write(b"PAR1 pandas")


class PolarsFrame:
    """As polars writes."""

    def write_csv(self) -> str:
        return "a\n2\n"

    def write_parquet(self, target: io.BytesIO) -> None:
        target.write(b"PAR1 polars")


def test_contents_of_every_kind() -> None:
    given = {
        "text": "\u00e4",
        "bytes": b"\0",
        "array": bytearray(b"x"),
        "file": io.BytesIO(b"from a file"),
        "lines": io.StringIO("from text"),
        "pandas.csv": PandasFrame(),
        "pandas.parquet": PandasFrame(),
        "polars.csv": PolarsFrame(),
        "polars.parquet": PolarsFrame(),
    }
    assert {upload.path: upload.content for upload in uploads(given)} == {
        "text": b"\xc3\xa4",
        "bytes": b"\0",
        "array": b"x",
        "file": b"from a file",
        "lines": b"from text",
        "pandas.csv": b"a\n1\n",
        "pandas.parquet": b"PAR1 pandas",
        "polars.csv": b"a\n2\n",
        "polars.parquet": b"PAR1 polars",
    }


def test_local_files_and_directories_go_as_they_are_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/a").write_text("a")
    (tmp_path / "d/e/b").write_text("b")
    (tmp_path / "d/link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "d/fifo")
    found = uploads({"data": tmp_path / "d", "one.txt": tmp_path / "d/a"})
    assert found == [
        Upload("data/a", tmp_path / "d/a"),
        Upload("data/e/b", tmp_path / "d/e/b"),
        Upload("one.txt", tmp_path / "d/a"),
    ]


def test_what_is_not_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        uploads({"a": tmp_path / "missing"})


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("../a", "x", "`..`"),
        ("/a", "x", "relative"),
        ("", "x", "name"),
        ("a", 7, "got int"),
        ("a.xlsx", PandasFrame(), r"\.csv or \.parquet"),
    ],
)
def test_what_cannot_be_sent_is_named(path: str, value: object, why: str) -> None:
    with pytest.raises(RequestInvalid, match=f"files: .*{why}"):
        uploads({path: value})
