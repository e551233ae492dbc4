"""A full journal: output's bodies go first, then whole segments; nobody waits, nothing tears."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandcell_gateway.journal import compaction, shelf
from sandcell_gateway.journal import journal as module
from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind, Record, Tombstone
from sandcell_gateway.journal.segments import Segment
from sandcell_gateway.journal.store import COMPACT
from tests.journal.samples import body_of, files, fill, message, total_bytes, verified
from tests.support.gateways import eventually

MAX_BYTES = 64 << 10
"""Sixteen segments of 4 KiB."""


@pytest.fixture(autouse=True)
def _from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT_BYTES", 1000)
    monkeypatch.setattr(compaction, "PAUSE", 0)


def open_(directory: Path) -> Journal:
    return Journal(directory, max_bytes=MAX_BYTES, background=False)


def test_output_goes_first_and_leaves_tombstones(tmp_path: Path) -> None:
    with open_(tmp_path) as journal:
        fill(journal, 200)
        journal.upkeep()
        assert total_bytes(tmp_path) <= MAX_BYTES + 4096
        records = list(journal.scan())
        assert [record.seq for record in records] == list(range(1, 201))
        for record in records:
            if record.owner:
                assert body_of(record) == (b"code" if record.seq % 5 == 1 else b"reply")
        dropped = [record.seq for record in records if isinstance(record, Tombstone)]
        kept = [r.seq for r in records if isinstance(r, Record) and not r.owner]
        assert len(dropped) > 20
        assert len(kept) > 20
        assert max(dropped) < min(kept)
    found = verified(tmp_path)
    assert (found.first, found.seq, found.tombstones) == (1, 200, len(dropped))
    with open_(tmp_path) as journal:
        assert list(journal.scan()) == records


def test_tombstones_say_what_was_there(tmp_path: Path) -> None:
    with open_(tmp_path) as journal:
        big = journal.append(message(b"x" * 100_000), Kind.REQUEST, "a")
        output = journal.append(message(b"y" * 100), Kind.SHIM)
        fill(journal, 200)
        journal.upkeep()
        for record in (big, output):
            found = journal.get(record.seq)
            assert found == Tombstone(*record[:4], length=len(record.frame))


def test_beyond_a_quarter_whole_segments_go_and_the_chain_says_from_where(tmp_path: Path) -> None:
    with open_(tmp_path) as journal:
        for _ in range(20):
            fill(journal, 100)
            journal.upkeep()
            assert total_bytes(tmp_path) <= MAX_BYTES + 4096
            compact = [p.stat().st_size for p in files(tmp_path) if p.suffix == COMPACT]
            assert sum(compact) <= MAX_BYTES // 4 + 2 * 4096
        oldest = journal.oldest
        assert oldest > 1
        assert journal.get(oldest - 1) is None
        assert journal.get(oldest) is not None
        head = journal.head()
    found = verified(tmp_path)
    assert (found.first, found.seq, found.chain) == (oldest, *head)
    with open_(tmp_path) as journal:
        assert (journal.oldest, journal.head()) == (oldest, head)


def test_requests_alone_are_bounded_too(tmp_path: Path) -> None:
    with open_(tmp_path) as journal:
        for _ in range(500):
            journal.append(message(b"x" * 1000, "shell"), Kind.REQUEST, "a")
        journal.upkeep()
        assert total_bytes(tmp_path) <= MAX_BYTES + 4096
        assert journal.oldest > 100
    assert verified(tmp_path).first > 100


def test_one_record_may_be_larger_than_everything(tmp_path: Path) -> None:
    with open_(tmp_path) as journal:
        for size in (100, 200_000, 100, 300_000):
            journal.append(message(b"x" * size), Kind.KERNEL)
            journal.upkeep()
        assert len(body_of(journal.get(4))) == 300_000
        fill(journal, 10)
        journal.upkeep()
        assert isinstance(journal.get(2), Tombstone)
        assert total_bytes(tmp_path) <= MAX_BYTES
    assert verified(tmp_path).first == 1


def test_holes_survive_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_(tmp_path) as journal:
        fill(journal, 10)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwritev", full)
            fill(journal, 5)
        fill(journal, 185)
        journal.upkeep()
        numbers = [record.seq for record in journal.scan()]
        assert numbers == [*range(1, 11), *range(16, 201)]
        assert isinstance(journal.get(17), Tombstone)
    assert verified(tmp_path).holes == [(11, 15)]


def test_the_thread_keeps_it_within_bounds(tmp_path: Path) -> None:
    with Journal(tmp_path, max_bytes=MAX_BYTES) as journal:
        fill(journal, 1000)
    assert total_bytes(tmp_path) <= MAX_BYTES + 4096
    assert verified(tmp_path).seq == 1000


def test_a_full_journal_or_many_bytes_do_not_wait_for_the_next_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SYNC_SECONDS", 3600.0)
    with Journal(tmp_path / "full", max_bytes=MAX_BYTES) as journal:
        fill(journal, 200)
        eventually("room is made", lambda: not journal._shelf.is_full())
    monkeypatch.setattr(module, "SYNC_BYTES", 5000)
    with Journal(tmp_path / "bytes") as journal:
        fill(journal, 20)
        eventually("it is synced", lambda: journal._mark.synced > 0)


def test_a_thread_that_is_too_slow_costs_the_oldest_not_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "LAG_BYTES", 0)
    with open_(tmp_path) as journal:
        for _ in range(10):
            fill(journal, 100)
            assert total_bytes(tmp_path) <= MAX_BYTES * 3 // 2 + 2 * 4096
        assert journal.oldest > 500
        assert list(journal.scan())[-1].seq == 1000
    assert verified(tmp_path).seq == 1000


@pytest.mark.parametrize("victim", [0, 1], ids=["the compacted one", "the one that is copied"])
def test_what_is_dropped_while_it_is_compacted_stays_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    with open_(tmp_path) as journal:
        fill(journal, 150)
        journal.upkeep()
        while not journal._shelf.is_full():
            fill(journal, 5)
        newest = journal.newest
        sources: list[Segment] = []

        def condense(source: Segment, target: Segment) -> Callable[[], None]:
            commit = compaction.condense(source, target)
            sources.append(source)
            segments = list(journal._shelf._segments)
            assert segments.index(source) > 0
            for segment in segments[: segments.index(source) + victim]:
                journal._shelf._drop(segment)
            return commit

        with monkeypatch.context() as patched:
            patched.setattr(shelf, "condense", condense)
            assert journal._shelf.shrink()
        numbers = [record.seq for record in journal.scan()]
        assert numbers == list(range(numbers[0], newest + 1))
        assert numbers[0] == (sources[0].first, sources[0].end)[victim]
        assert verified(tmp_path).first == journal.oldest
        journal.upkeep()
    assert verified(tmp_path).seq == newest


def test_a_disk_that_refuses_the_compacted_file_costs_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_(tmp_path) as journal:
        fill(journal, 200)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwritev", full)
            journal.upkeep()
        assert total_bytes(tmp_path) <= MAX_BYTES + 4096
        assert journal.oldest > 1
    assert verified(tmp_path).seq == 200


def test_half_of_a_compaction_that_failed_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[Segment] = []

    def condense(source: Segment, target: Segment) -> Callable[[], None]:
        if target not in journal._shelf._segments[1:]:
            return compaction.condense(source, target)
        failed.append(target)
        target.write([b"half"], target.size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shelf, "condense", condense)
    with open_(tmp_path) as journal:
        while not failed:
            fill(journal, 5)
            while journal._shelf.is_full() and not failed:
                journal._shelf.shrink()
        assert failed[0] in journal._shelf._segments
        assert failed[0].path.stat().st_size == failed[0].size
        assert verified(tmp_path).seq == journal.newest


def test_a_crash_at_any_moment_of_compacting_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is copied before and after each step that changes it."""
    directory, copies = tmp_path / "journal", tmp_path / "copies"
    copies.mkdir()

    def copy() -> None:
        shutil.copytree(directory, copies / f"{len(list(copies.iterdir())):04d}")

    def copied(step: Callable[..., Any]) -> Callable[..., Any]:
        def both(*args: Any, **kwargs: Any) -> Any:
            copy()
            result = step(*args, **kwargs)
            copy()
            return result

        return both

    monkeypatch.setattr(compaction, "SLICE", 3)
    with open_(directory) as journal:
        fill(journal, 50)
        journal.upkeep()
        fill(journal, 100)
        whole = list(journal.scan())
        with monkeypatch.context() as patched:
            for name in ("pwritev", "unlink", "fdatasync", "fsync"):
                patched.setattr(os, name, copied(getattr(os, name)))
            journal.upkeep()
    moments = sorted(copies.iterdir())
    assert len(moments) > 30
    for moment in moments:
        verified(moment)
        with open_(moment) as journal:
            assert journal.newest == 150
            for was, record in zip(whole, journal.scan(), strict=True):
                assert record in (was, Tombstone(*was[:4], len(getattr(was, "frame", b""))))
        assert (verified(moment).first, verified(moment).holes) == (1, [])
