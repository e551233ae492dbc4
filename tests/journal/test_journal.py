"""Numbers without holes, replay across restarts, reading beside writing."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.journal import journal as module
from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import GENESIS, Head, Kind, Record, State, parse_all
from sandcell_gateway.journal.verify import verify
from tests.journal.samples import body_of, fill, message, verified

SMALL = 64 << 10
"""Sixteen segments of 4 KiB."""


@pytest.fixture(autouse=True)
def _from_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT_BYTES", 2000)


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=30), st.integers(0, 30))
def test_what_was_written_is_read_also_by_the_next_process(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], reopen_at: int
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory, background=False)
    for index, content in enumerate(bodies):
        if index == reopen_at:
            # The earlier process was killed: nothing was closed.
            journal = Journal(directory, background=False)
        assert journal.append(message(content), Kind.KERNEL).seq == index + 1
    with Journal(directory) as reader:
        assert reader.newest == len(bodies)
        assert [body_of(reader.get(seq)) for seq in range(1, len(bodies) + 1)] == bodies
        assert reader.head() == journal.head()


def test_an_empty_journal_has_nothing_and_says_so(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert (journal.newest, journal.oldest, journal.head()) == (0, 1, (0, GENESIS))
        assert (journal.get(0), journal.get(1), list(journal.scan())) == (None, None, [])
    with Journal(tmp_path) as journal:
        assert journal.newest == 0
    assert verified(tmp_path).seq == 0


def test_records_of_all_sizes_come_back_in_order(tmp_path: Path) -> None:
    sizes = [0, 1, 5000, 70, 300_000, 3, 1_000_000, 600_000, 9]
    with Journal(tmp_path) as journal:
        for size in sizes:
            journal.append(message(b"x" * size), Kind.KERNEL)
        assert [len(body_of(record)) for record in journal.scan()] == sizes
        assert [len(body_of(journal.get(seq))) for seq in range(1, 10)] == sizes
        assert journal.get(10) is None
    assert verified(tmp_path).seq == len(sizes)


def test_a_read_is_bounded_but_gives_something(tmp_path: Path) -> None:
    with Journal(tmp_path, max_bytes=SMALL) as journal:
        fill(journal, 100, size=300)
        assert [record.seq for record in journal.read(1, 1)] == [1]
        numbers = [record.seq for record in journal.read(3, 2000)]
        assert numbers[0] == 3
        assert all(b == a + 1 for a, b in pairwise(numbers))
        assert len(numbers) < 10
        assert journal.read(101) == []


def test_a_clients_view_holds_its_own_replies_and_everybodys_output(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        request = journal.append(message(), Kind.REQUEST, "a")
        reply = journal.append(message(), Kind.KERNEL, "a")
        output = journal.append(message(), Kind.SHIM)
    assert [r.visible_to("a") for r in (request, reply, output)] == [False, True, True]
    assert [r.visible_to("b") for r in (request, reply, output)] == [False, False, True]


def test_memory_holds_the_newest_records_only(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for _ in range(20):
            journal.append(message(b"x" * 500), Kind.KERNEL)
        assert journal.recent(17) is None
        assert isinstance(journal.recent(20), Record)
        journal.append(message(b"x" * 5000), Kind.KERNEL)
        assert journal.recent(20) is None
        assert len(body_of(journal.recent(21))) == 5000
        assert len(body_of(journal.get(1))) == 500
        assert (journal.recent(0), journal.recent(22)) == (None, None)


def test_owners_times_and_kinds_come_back(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        written = [journal.append(message(), Kind.REQUEST, owner) for owner in ("", "ä" * 64, "b")]
        assert [journal.get(record.seq) for record in written] == written
    with Journal(tmp_path) as journal:
        assert [journal.get(record.seq) for record in written] == written


def test_threads_read_while_it_is_written_and_compacted(tmp_path: Path) -> None:
    """Every reader gets each number once and in order, as a record or a tombstone, or after."""
    count = 2000
    done = threading.Event()
    failures: list[str] = []

    def read(journal: Journal) -> None:
        seen = 0
        while not (done.is_set() and seen >= journal.newest):
            for record in journal.read(seen + 1, 3000):
                if record.seq <= seen:
                    failures.append(f"{record.seq} after {seen}")
                if isinstance(record, Record) and record.kind is Kind.KERNEL:
                    content = body_of(record)
                    if content != b"%d" % record.seq * 40:
                        failures.append(f"{record.seq} has another body")
                seen = record.seq
        if seen != count:
            failures.append(f"ended at {seen}")

    with Journal(tmp_path, max_bytes=SMALL) as journal:
        readers = [threading.Thread(target=read, args=(journal,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for seq in range(1, count + 1):
            journal.append(message(b"%d" % seq * 40), Kind.KERNEL)
        done.set()
        for reader in readers:
            reader.join(60)
        head = journal.head()
    assert failures == []
    assert verified(tmp_path).chain == head[1]


def _raw(journal: Journal, first: int, stop: int, size: int) -> list[tuple[Head, bytes | None]]:
    """Read in pieces of about that size."""
    entries: list[tuple[Head, bytes | None]] = []
    seq = first
    while seq < stop:
        data, seq = journal.raw(seq, stop, size)
        entries += parse_all(data)
    return entries


@pytest.mark.parametrize("size", [1, 700, 5000, 1 << 20])
def test_entries_can_be_had_as_they_are_stored_and_verify(tmp_path: Path, size: int) -> None:
    with Journal(tmp_path, max_bytes=SMALL, background=False) as journal:
        fill(journal, 100)
        journal.upkeep()
        entries = _raw(journal, 1, journal.newest + 1, size)
        found = verify(entries)
        assert (found.seq, found.chain) == journal.head()
        numbers = [head.seq for head, _ in entries if head.state is not State.BASE]
        assert numbers == list(range(found.first, 101))
        part = _raw(journal, 40, 60, size)
        assert [head.seq for head, _ in part if head.state is not State.BASE] == [*range(40, 60)]
