"""A command's output on disk: what is kept, what is dropped, and what a death leaves."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.shim.spool import STDERR, STDOUT, Chunk, Spool, SpoolReader

MOST = 400
"""Small, so that little output fills it."""
pieces = st.lists(
    st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1, max_size=150)), max_size=30
)


def read(spool: Spool, after: int = 0) -> tuple[list[Chunk], int]:
    with SpoolReader(spool, after) as reader:
        chunks = reader.read()
        return chunks, reader.lost


def told(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


@given(pieces, st.integers(0, 5000))
def test_the_newest_is_kept_in_order_and_the_rest_is_counted(
    given_pieces: list[tuple[int, bytes]], after: int
) -> None:
    whole = b"".join(data for _, data in given_pieces)
    with TemporaryDirectory() as directory:
        spool = Spool(Path(directory), MOST)
        for stream, data in given_pieces:
            spool.append(stream, data)
        assert spool.end == len(whole)
        chunks, lost = read(spool, after)
        begin = min(after, len(whole))
        assert told(chunks) == whole[begin + lost :]
        assert begin + lost in (begin, spool.start)
        assert sum(path.stat().st_size for path in Path(directory).iterdir()) < 2 * MOST
        for stream in (STDOUT, STDERR):
            assert spool.counts[stream] == sum(len(d) for s, d in given_pieces if s == stream)
        assert [chunk.end for chunk in chunks[-1:]] in ([], [len(whole)])
        spool.close()


@given(pieces, st.integers(0, 200), st.binary(min_size=1, max_size=20))
def test_a_next_shim_finds_all_but_a_record_that_was_cut(
    given_pieces: list[tuple[int, bytes]], cut: int, more: bytes
) -> None:
    """Whatever was cut off at the end, what is counted is what is there, and it goes on."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        first = Spool(directory, MOST)
        for stream, data in given_pieces:
            first.append(stream, data)
        first.close()
        newest = max(directory.iterdir(), default=None)
        if newest is not None:
            os.truncate(newest, max(0, newest.stat().st_size - cut))
        whole = b"".join(data for _, data in given_pieces)
        second = Spool(directory, MOST)
        chunks, lost = read(second)
        assert told(chunks) == whole[lost : second.end]
        assert second.end >= len(whole) - cut - 150
        second.append(STDERR, more)
        chunks, lost = read(second)
        assert told(chunks).endswith(more)
        second.close()


def test_a_reader_goes_on_over_what_comes_meanwhile(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MOST)
    with SpoolReader(spool, 0) as reader:
        assert reader.read() == []
        for number in range(50):
            spool.append(STDOUT, bytes([number]) * 20)
            assert told(reader.read()) == bytes([number]) * 20
        assert reader.lost == 0
    spool.close()


def test_a_reader_that_is_left_behind_is_told_how_much_is_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MOST)
    spool.append(STDOUT, b"first")
    with SpoolReader(spool, 0) as reader:
        assert told(reader.read()) == b"first"
        for _ in range(50):
            spool.append(STDOUT, b"x" * 20)
        chunks = reader.read()
        assert reader.lost > 0
        assert reader.lost + len(told(chunks)) == 50 * 20
    spool.close()


def test_a_full_disk_keeps_what_was_there_and_takes_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, MOST)
    spool.append(STDOUT, b"before")
    write = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if len(data) < 3:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2], at)

    for size in (20, MOST):  # in a file, and when another is begun
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match="No space"):
                spool.append(STDOUT, b"y" * size)
        assert told(read(spool)[0]) == b"before"
    spool.append(STDOUT, b" after")
    assert told(read(spool)[0]) == b"before after"
    spool.close()
