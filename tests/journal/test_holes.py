"""A journal knows which of its numbers are stored nowhere."""

from __future__ import annotations

import errno
from itertools import pairwise
from pathlib import Path

import pytest

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind
from sandcell_gateway.journal.segments import Segment
from tests.journal.samples import fill, message, verified


def refuse(monkeypatch: pytest.MonkeyPatch, journal: Journal, count: int) -> None:
    """Records for which there is no room."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(Segment, "write", full)
        for _ in range(count):
            journal.append(message(), Kind.KERNEL)


def test_a_journal_without_holes_has_none(tmp_path: Path) -> None:
    with Journal(tmp_path, background=False) as journal:
        assert journal.holes(0) == []
        fill(journal, 20)
        assert journal.holes(20) == []


def test_what_the_disk_refused_is_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(tmp_path, background=False) as journal:
        refuse(monkeypatch, journal, 2)
        assert journal.holes(2) == [(1, 2)], "nothing is stored yet"
        fill(journal, 5)
        refuse(monkeypatch, journal, 3)
        fill(journal, 5)
        refuse(monkeypatch, journal, 1)
        # What is before the first record that is stored was dropped, for all that one can see.
        assert journal.holes(16) == [(8, 10), (16, 16)]
        assert journal.holes(9) == [(8, 9)]
        assert journal.holes(7) == []
        journal.sync()
    with Journal(tmp_path, background=False) as journal:
        assert journal.holes(16) == [(8, 10), (16, 16)], "also when it is opened again"
    assert verified(tmp_path).holes == [(8, 10), (16, 16)]


def test_numbers_between_two_files_count(tmp_path: Path) -> None:
    with Journal(tmp_path, max_bytes=64 << 10, background=False) as journal:
        fill(journal, 60)
        journal.sync()
    files = sorted(tmp_path.glob("*.journal"))
    assert len(files) > 2
    files[1].unlink()
    first, last = int(files[1].stem), int(files[2].stem) - 1
    with Journal(tmp_path, background=False) as journal:
        assert journal.holes(60) == [(first, last)]


def test_a_view_is_not_changed_by_making_room(tmp_path: Path) -> None:
    """Whoever reads slowly must not find holes where a segment was dropped meanwhile."""
    with Journal(tmp_path, max_bytes=64 << 10, background=False) as journal:
        fill(journal, 60)
        view, newest, seqs = journal.view(), journal.newest, list[int]()
        for _ in range(20):
            fill(journal, 60)
            journal.upkeep()
        assert journal.raw(1, newest + 1) == (b"", newest + 1), "all that it had is dropped"
        seq = 1
        while seq <= newest:
            data, seq = journal.raw(seq, newest + 1, 1, view)
            assert data
            seqs.append(seq)
        assert seqs[0] == 2
        assert all(later == earlier + 1 for earlier, later in pairwise(seqs))
