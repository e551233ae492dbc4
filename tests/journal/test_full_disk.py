"""A disk that takes no more: the session goes on, is told once, and loses only what came then."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandcell_gateway.journal import journal as module
from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Head, Kind, parse_all
from sandcell_gateway.journal.store import FULL
from sandcell_gateway.journal.verify import verify
from tests.journal.samples import body_of, fill, message, verified


class Disk:
    """Refuses to write while it has an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: int | None = None
        self._write = os.pwritev
        monkeypatch.setattr(os, "pwritev", self.pwritev)

    def pwritev(self, *args: object) -> int:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        return self._write(*args)  # type: ignore[arg-type]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(module, "CALM_SECONDS", 0)
    monkeypatch.setattr(module, "RECENT_BYTES", 3000)
    return Disk(monkeypatch)


ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG]


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_it_goes_on_is_told_once_and_verifies_across_the_hole(
    tmp_path: Path, disk: Disk, error: int
) -> None:
    told: list[str | None] = []
    with Journal(tmp_path, background=False) as journal:
        journal.on_trouble = told.append
        fill(journal, 10)
        disk.error = error
        for seq in range(11, 31):
            assert journal.append(message(b"x" * 300), Kind.KERNEL).seq == seq
        assert len(told) == 1
        assert os.strerror(error) in str(told[0])
        assert len(body_of(journal.get(30))) == 300  # those who listen now get it
        assert journal.get(11) is None
        assert body_of(journal.get(1)) == b"code"
        assert [record.seq for record in journal.read(9)] == [9, 10]
        assert journal.read(11)[0].seq > 20  # from memory; what is left out is missing
        disk.error = None
        fill(journal, 20)
        assert told[1:] == [None]
        assert [record.seq for record in journal.scan()] == [*range(1, 11), *range(31, 51)]
    found = verified(tmp_path)
    assert (found.holes, found.seq, found.chain) == ([(11, 30)], *journal.head())


def test_numbers_count_on_when_the_process_dies_with_the_disk_full(
    tmp_path: Path, disk: Disk
) -> None:
    journal = Journal(tmp_path, background=False)
    fill(journal, 10)
    disk.error = errno.ENOSPC
    fill(journal, 10)
    with Journal(tmp_path, background=False) as successor:
        assert successor.head() == journal.head()
        assert (successor.newest, successor.get(11)) == (20, None)
        assert successor.read(11) == []
        disk.error = None
        fill(successor, 5)
        assert [record.seq for record in successor.scan()] == [*range(1, 11), *range(21, 26)]
    assert verified(tmp_path).holes == [(11, 20)]


def test_a_disk_that_is_full_now_and_then_makes_few_files(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []
    monkeypatch.setattr(module, "CALM_SECONDS", 1000)
    with Journal(tmp_path, background=False) as journal:
        journal.on_trouble = told.append
        for round_number in range(50):
            disk.error = errno.ENOSPC if round_number % 2 else None
            fill(journal, 5)
    assert len(list(tmp_path.glob("*" + FULL))) == 1
    assert len(told) == 1
    assert len(verified(tmp_path).holes) == 25


def test_a_long_hole_costs_no_memory(tmp_path: Path, disk: Disk) -> None:
    with Journal(tmp_path, background=False) as journal:
        fill(journal, 5)
        disk.error = errno.ENOSPC
        fill(journal, 3000, size=10)
        disk.error = None
        fill(journal, 5)
        assert sum(len(segment) for segment in journal._shelf._segments) == 10
    assert verified(tmp_path).holes == [(6, 3005)]


def test_a_failed_sync_is_told_and_does_not_stop_it(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Journal(tmp_path, background=False) as journal:
        journal.on_trouble = told.append
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", broken)
            fill(journal, 5)
            journal.sync()
            journal.sync()
        assert told == ["the session's journal cannot be synced (Input/output error)"]
        fill(journal, 5)
        journal.sync()
        assert told[1:] == [None]
        assert len(list(tmp_path.glob("*" + FULL))) == 2  # nothing more into the one that failed
    assert verified(tmp_path).seq == 10


# -- real ones -----------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if os.getuid() != 0:
        pytest.skip("only root may mount a file system; RLIMIT_FSIZE is tested instead")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazily: a test that failed may still hold a file.
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _while_full(journal: Journal) -> int:
    """Append until records are refused; how many could be stored."""
    told: list[str | None] = []
    journal.on_trouble = told.append
    while not told:
        journal.append(message(b"%d " % (journal.newest + 1) * 3000), Kind.KERNEL)
    stored = journal.newest - 1
    for _ in range(50):
        journal.append(message(b"%d " % (journal.newest + 1) * 3000), Kind.KERNEL)
    return stored


def _check(journal: Journal, stored: int) -> None:
    for record in journal.scan():
        assert body_of(record) == b"%d " % record.seq * 3000
    assert all(journal.get(seq) is not None for seq in range(1, stored + 1))


def test_a_real_full_file_system(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALM_SECONDS", 0)
    monkeypatch.setattr(module, "RECENT_BYTES", 50_000)
    ballast = tiny / "ballast"
    ballast.write_bytes(bytes(500_000))
    with Journal(tiny / "journal") as journal:
        stored = _while_full(journal)
        newest = journal.newest
        _check(journal, stored)
        ballast.unlink()
        journal.append(message(b"%d " % (newest + 1) * 3000), Kind.KERNEL)
        _check(journal, stored)
        assert journal.get(newest + 1) is not None
    found = verified(tiny / "journal")
    assert found.seq == newest + 1
    assert found.holes[-1][1] == newest


LIMITED = """
import resource, sys
from pathlib import Path
from sandcell_gateway.journal import journal as module
from tests.journal.test_full_disk import _check, _while_full

resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
module.RECENT_BYTES = 50_000
with module.Journal(Path(sys.argv[1])) as journal:
    stored = _while_full(journal)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    _check(journal, stored)
    print(stored, *journal.head())
"""


def test_a_real_limit_of_the_file_size(tmp_path: Path) -> None:
    """EFBIG: it goes on in the next file."""
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    found = verified(tmp_path)
    assert len(list(tmp_path.glob("*" + FULL))) > 2
    assert found.seq == int(ended.stdout.split()[0]) + 51
    assert all(first == last for first, last in found.holes)


def test_a_hole_is_passed_in_what_is_read_as_it_is_stored(tmp_path: Path, disk: Disk) -> None:
    with Journal(tmp_path, background=False) as journal:
        fill(journal, 5)
        disk.error = errno.ENOSPC
        fill(journal, 5)
        disk.error = None
        fill(journal, 5)
        seq, entries = 1, list[tuple[Head, bytes | None]]()
        while seq <= 15:
            data, seq = journal.raw(seq, 16, 1)
            entries += parse_all(data)
        found = verify(entries)
        assert (found.seq, found.chain, found.holes) == (*journal.head(), [(6, 10)])
