"""Crashes, torn tails, lost power, a full disk: in any order it opens, verifies, and has
lost nothing but what had not been synced (power) or stored (disk)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sandcell_gateway.journal import compaction
from sandcell_gateway.journal import journal as module
from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind, Record
from sandcell_gateway.journal.store import FULL, stored_entries
from sandcell_gateway.journal.verify import ChainError, verify
from tests.journal.samples import body_of, files, fill, message, verified

MAX_BYTES = 16 << 10
WRITE = os.pwritev


class Faults(RuleBasedStateMachine):
    """Compares a journal with a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="sc-journal-"))
        self.written: dict[int, tuple[Kind, str, bytes]] = {}
        self.lost: set[int] = set()
        """Numbers that need not be there."""
        self.journal = self.open()
        self.sizes: dict[str, int] = {}
        """Bytes of each file that are synced."""

    def open(self) -> Journal:
        return Journal(self.directory, max_bytes=MAX_BYTES, background=False)

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.directory)

    # -- what happens --------------------------------------------------------------------

    @rule(
        count=st.integers(1, 8),
        size=st.sampled_from([0, 10, 400, 3000]),
        kind=st.sampled_from(Kind),
        owner=st.sampled_from(["", "a"]),
    )
    def append(self, count: int, size: int, kind: Kind, owner: str) -> None:
        for _ in range(count):
            seq = self.journal.newest + 1
            body = b"%d " % seq + b"x" * size
            assert self.journal.append(message(body), kind, owner).seq == seq
            self.written[seq] = (kind, owner, body)

    @rule()
    def upkeep(self) -> None:
        self.journal.upkeep()
        self.sizes = {path.name: path.stat().st_size for path in files(self.directory)}

    @rule()
    def killed(self) -> None:
        """What was written is in the page cache."""
        head = self.journal.head()
        self.journal = self.open()
        assert self.journal.head() == head

    @rule(data=st.data())
    def killed_while_it_writes(self, data: st.DataObject) -> None:
        head = self.journal.head()
        path = self.last_file()
        before = path.stat().st_size if path else 0
        self.journal.append(message(b"y" * data.draw(st.sampled_from([0, 50, 2000]))), Kind.SHIM)
        path = self.last_file()
        assert path is not None
        after = path.stat().st_size
        begin = before if before < after else 0  # it may have begun a file
        os.truncate(path, data.draw(st.integers(begin, after - 1)))
        self.journal = self.open()
        assert self.journal.head() == head

    @rule(data=st.data())
    def power_lost(self, data: st.DataObject) -> None:
        """Behind what was synced anything may be missing, or zeros."""
        before = self.journal.newest
        for path in [p for p in files(self.directory) if p.suffix == FULL]:
            synced = self.sizes.get(path.name)
            size = path.stat().st_size
            if synced is None and data.draw(st.booleans()):
                path.unlink()
                continue
            kept = data.draw(st.integers(synced or 0, size))
            os.truncate(path, kept)
            if data.draw(st.booleans()):
                os.truncate(path, size)  # the length was stored, the bytes were not
        self.journal = self.open()
        for seq in range(self.journal.newest + 1, before + 1):
            del self.written[seq]
        self.lost |= {seq for seq in self.written if seq > self.synced()}
        self.lost &= {seq for seq in self.written if self.journal.get(seq) is None}

    @rule(count=st.integers(1, 4), written=st.integers(0, 100))
    def disk_full(self, count: int, written: int) -> None:
        def full(fd: int, parts: Sequence[bytes], at: int) -> int:
            WRITE(fd, [b"".join(parts)[:written]], at)
            raise OSError(errno.ENOSPC, "No space left on device")

        with mock.patch.object(os, "pwritev", full):
            first = self.journal.newest + 1
            self.append(count, 100, Kind.KERNEL, "")
        self.lost |= set(range(first, first + count))

    # -- what must hold ------------------------------------------------------------------

    def last_file(self) -> Path | None:
        paths = [path for path in files(self.directory) if path.suffix == FULL]
        return paths[-1] if paths else None

    def synced(self) -> int:
        return self.journal._mark.synced

    @invariant()
    def it_verifies(self) -> None:
        found = verified(self.directory)
        assert (found.seq, found.chain) == self.journal.head()
        for first, last in found.holes:
            assert set(range(first, last + 1)) <= self.lost
        if not self.journal.recent(self.journal.newest):
            assert found.first == self.journal.oldest or found.seq == 0 or found.holes

    @invariant()
    def what_is_there_is_right(self) -> None:
        assert self.journal.newest == max(self.written, default=self.journal.newest)
        for seq, (kind, owner, body) in self.written.items():
            record = self.journal.get(seq)
            if record is None:
                assert seq in self.lost or seq < self.journal.oldest
                continue
            assert (record.seq, record.kind, record.owner) == (seq, kind, owner)
            if isinstance(record, Record):
                assert body_of(record) == body
            else:
                assert owner == "" or len(body) > compaction.KEEP_BYTES


def test_in_any_order_of_faults_it_opens_verifies_and_keeps_what_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RECENT_BYTES", 1000)
    many = settings(max_examples=100, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Faults, settings=many)


# -- flipped bits ------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A journal with every kind of entry: compacted, full, a hole, and the mark."""
    directory = tmp_path / "journal"
    with Journal(directory, max_bytes=4 << 10, background=False) as journal:
        fill(journal, 30, size=100)
        journal.upkeep()
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch.object(os, "pwritev", side_effect=full):
            journal.append(message(), Kind.SHIM)
        fill(journal, 5, size=10)
        journal.upkeep()
        assert {path.suffix for path in files(directory)} == {".compact", ".journal", ""}
    found = verified(directory)
    assert (found.holes, found.seq) == ([(31, 31)], 36)
    assert found.tombstones > 0
    return directory


def test_a_flipped_bit_in_any_stored_byte_is_found(small: Path) -> None:
    for path in files(small):
        whole = path.read_bytes()
        for index in range(len(whole)):
            flipped = bytearray(whole)
            flipped[index] ^= 1 << index % 8
            path.write_bytes(flipped)
            with pytest.raises(ChainError):
                verify(stored_entries(small))
        path.write_bytes(whole)
    verified(small)


def test_damage_is_not_cut_off_and_what_is_read_is_right(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever byte is bad: other records are read, none is wrong, no number is given twice."""
    monkeypatch.setattr(module, "RECENT_BYTES", 0)
    with Journal(small, background=False) as journal:
        whole = {record.seq: record for record in journal.scan()}
        head = journal.head()
    copy = tmp_path / "copy"
    for name, size in [(path.name, path.stat().st_size) for path in files(small)]:
        for index in range(0, size, 37):
            shutil.copytree(small, copy)
            damaged = bytearray((small / name).read_bytes())
            damaged[index] ^= 0x10
            (copy / name).write_bytes(damaged)
            with Journal(copy, background=False) as journal:
                for record in journal.scan():
                    assert record == whole[record.seq]
                if name != "newest":
                    assert journal.head() == head
                    assert journal.append(message(), Kind.SHIM).seq == head[0] + 1
            if name != "newest":
                assert len((copy / name).read_bytes()) >= size
                with pytest.raises(ChainError):
                    verify(stored_entries(copy))
            shutil.rmtree(copy)


@pytest.mark.parametrize("count", [1, 300, 700])
def test_a_synced_file_that_became_shorter_is_found_and_left_alone(small: Path, count: int) -> None:
    """Its numbers are missing; none is given twice, and nothing is written behind the cut."""
    with Journal(small, background=False) as journal:
        journal.append(message(b"x" * 600), Kind.SHIM)
        journal.sync()
        head = journal.head()
    path = max(small.glob("*" + FULL))
    os.truncate(path, path.stat().st_size - count)
    cut = path.read_bytes()
    with pytest.raises(ChainError):
        verify(stored_entries(small))
    with Journal(small, background=False) as journal:
        assert (journal.head(), journal.get(head[0])) == (head, None)
        record = journal.append(message(), Kind.SHIM)
        assert record.seq == head[0] + 1
    assert path.read_bytes() == cut
    with Journal(small, background=False) as journal:
        assert journal.get(record.seq) == record


def test_damage_in_one_record_costs_no_other_file(tmp_path: Path) -> None:
    with Journal(tmp_path, max_bytes=64 << 10, background=False) as journal:
        fill(journal, 40)
        journal.sync()
        head = journal.head()
    paths = [path for path in files(tmp_path) if path.suffix == FULL]
    assert len(paths) > 2
    damaged = bytearray(paths[1].read_bytes())
    damaged[-1] ^= 1
    paths[1].write_bytes(damaged)
    with Journal(tmp_path, max_bytes=64 << 10, background=False) as journal:
        there = [record.seq for record in journal.scan()]
        (missing,) = set(range(1, 41)) - set(there)
        assert missing == int(paths[2].stem) - 1
        assert journal.head() == head


def test_a_torn_last_record_is_cut_off_and_its_number_used_again(tmp_path: Path) -> None:
    with Journal(tmp_path, background=False) as journal:
        journal.append(message(b"one"), Kind.KERNEL)
        journal.append(message(b"two"), Kind.KERNEL)
    (segment,) = tmp_path.glob("*" + FULL)
    os.truncate(segment, segment.stat().st_size - 1)
    with Journal(tmp_path, background=False) as journal:
        assert journal.newest == 1
        journal.append(message(b"new two"), Kind.KERNEL)
        assert body_of(journal.get(2)) == b"new two"
    assert verified(tmp_path).seq == 2


def test_a_mark_that_is_gone_does_no_harm(small: Path) -> None:
    (small / "newest").unlink()
    with Journal(small, background=False) as journal:
        assert journal.newest == 36
    assert verified(small).seq == 36


WRITER = """
import sys
from pathlib import Path
from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind
from sandcell_wire.messages import Message

journal = Journal(Path(sys.argv[1]), max_bytes=1 << 20)
while True:
    content = b"x" * (journal.newest % 3000)
    record = journal.append(Message("iopub", b"{}", content=content), Kind.KERNEL)
    print(record.seq, flush=True)
"""


@pytest.mark.parametrize("stop_after", [1, 500, 3000])
def test_nothing_is_lost_when_the_process_is_killed(tmp_path: Path, stop_after: int) -> None:
    """SIGKILL in the middle of appending, compacting and syncing."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    seen = 0
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            begun = seen
            for line in writer.stdout:
                seen = int(line)
                if seen >= begun + stop_after:
                    break
            writer.kill()
            seen = max([seen, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        with Journal(tmp_path, max_bytes=1 << 20, background=False) as journal:
            assert journal.newest >= seen
            assert [r.seq for r in journal.scan()] == list(
                range(journal.oldest, journal.newest + 1)
            )
            found: Any = verified(tmp_path)
            assert (found.seq, found.chain, found.holes) == (*journal.head(), [])
            seen = journal.newest
        if seen < 1000:
            assert found.first == 1
