"""The journal: numbers without holes, replay across restarts, bounded size."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.shim import journal as module
from sandcell_gateway.shim.journal import Journal, Kind
from sandcell_wire import frames
from sandcell_wire.messages import Message


def message(body: bytes = b"{}") -> Message:
    return Message("iopub", b'{"msg_id":"1","msg_type":"stream"}', content=body)


def body(journal: Journal, seq: int) -> bytes:
    record = journal.get(seq)
    assert record is not None
    number, read = frames.decode(record.frame)
    assert number == record.seq == seq
    return bytes(read.content)


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=30), st.integers(0, 30))
def test_what_was_written_is_read_also_by_the_next_process(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], reopen_at: int
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory)
    for index, content in enumerate(bodies):
        if index == reopen_at:
            journal = Journal(directory)  # the earlier process was killed: nothing was closed
        assert journal.append(message(content), Kind.KERNEL).seq == index + 1
    with Journal(directory) as reader:
        assert reader.newest == len(bodies)
        assert [body(reader, seq) for seq in range(1, len(bodies) + 1)] == bodies


def test_a_torn_last_record_is_cut_off_and_its_number_used_again(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append(message(b"one"), Kind.KERNEL)
        journal.append(message(b"two"), Kind.KERNEL)
    (segment,) = tmp_path.iterdir()
    os.truncate(segment, segment.stat().st_size - 1)
    with Journal(tmp_path) as journal:
        assert journal.newest == 1
        journal.append(message(b"new two"), Kind.KERNEL)
        assert body(journal, 2) == b"new two"


def test_the_oldest_records_go_when_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1000)
    monkeypatch.setattr(module, "RECENT_BYTES", 500)
    with Journal(tmp_path, max_bytes=5000) as journal:
        for index in range(100):
            journal.append(message(b"%d" % index + b"x" * 100), Kind.KERNEL)
        assert 1 < journal.oldest < 100
        assert journal.get(journal.oldest - 1) is None
        for seq in range(journal.oldest, 101):
            assert body(journal, seq).startswith(b"%d" % (seq - 1))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 5000 + 2000


def test_a_full_disk_is_a_gap_for_later_readers_and_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(tmp_path) as journal:
        journal.append(message(b"one"), Kind.KERNEL)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwritev", full)
            assert frames.decode(journal.append(message(b"two"), Kind.KERNEL).frame)[0] == 2
            assert body(journal, 2) == b"two"  # those who listen now get it
        journal.append(message(b"three"), Kind.KERNEL)
    with Journal(tmp_path) as journal:
        assert journal.get(2) is None
        assert (body(journal, 1), body(journal, 3)) == (b"one", b"three")


def test_a_clients_view_holds_its_own_replies_and_everybodys_output(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        request = journal.append(message(), Kind.REQUEST, "a")
        reply = journal.append(message(), Kind.KERNEL, "a")
        output = journal.append(message(), Kind.SHIM)
    assert [r.visible_to("a") for r in (request, reply, output)] == [False, True, True]
    assert [r.visible_to("b") for r in (request, reply, output)] == [False, False, True]
