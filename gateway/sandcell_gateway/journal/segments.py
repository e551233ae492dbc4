"""The journal's files: consecutive entries, and in memory where each record begins.

A segment is written by one thread at its end and read by any, with `pread` at places
of their own; neither waits for the other. Its file descriptor is closed when nobody
holds the segment any more, so that a reader may go on in one that was just deleted.
"""

from __future__ import annotations

import contextlib
import logging
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from sandcell_gateway.journal.records import (
    HEAD_BYTES,
    Damaged,
    Entry,
    Head,
    Record,
    Short,
    State,
    Tombstone,
    base,
    digest_of,
    parse,
)

log = logging.getLogger(__name__)

WINDOW_BYTES = 256 << 10
"""Bytes read at once; more than the longest head with its owner."""
MAX_HOLE = 1024
"""Most missing numbers within one file: each costs four bytes of memory."""


class Window:
    """A file looked at through a buffer, mostly forward."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._buffer = b""
        self._begin = 0

    def head(self, at: int) -> tuple[Head, int, int]:
        """The head at this offset, and where its body begins and ends. Raises `Damaged`."""
        if at < self._begin:
            self._fill(at)
        try:
            head, body_at = parse(self._buffer, at - self._begin)
        except Short:
            self._fill(at)
            head, body_at = parse(self._buffer)
        body_at += self._begin
        end = body_at + head.length if head.state is State.STORED else body_at
        if end > self._size:
            raise Damaged("the file ends within a body")
        return head, body_at, end

    def _fill(self, at: int) -> None:
        self._begin = at
        self._buffer = os.pread(self._fd, min(WINDOW_BYTES, self._size - at), at)

    def cut(self, begin: int, end: int) -> bytes:
        """These bytes; fewer where the file ends."""
        low, high = begin - self._begin, end - self._begin
        if low >= 0 and high <= len(self._buffer):
            return self._buffer[low:high]
        return _read_all(self._fd, end - begin, begin)


def _read_all(fd: int, count: int, at: int) -> bytes:
    data = os.pread(fd, count, at)
    if len(data) == count or not data:
        return data
    return data + _read_all(fd, count - len(data), at + len(data))  # one read gives at most 2 GiB


def walk(window: Window, size: int) -> Iterator[tuple[int, Head, int, int]]:
    """Every entry's offset and head, and where its body begins and ends.

    Raises `Damaged` where the entries end before the file does.
    """
    at = 0
    while at < size:
        head, body_at, end = window.head(at)
        yield at, head, body_at, end
        at = end


class Segment:
    """One file of records whose numbers rise, mostly by one."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.first = int(path.stem)
        """The number of its first record."""
        self.size = 0
        """Bytes that are entries."""
        self.synced = 0
        """Bytes that are known to survive a loss of power."""
        self.sealed = False
        """Whether nothing may be written to it any more."""
        self.torn = 0
        """Bytes at its end, when it was loaded, that are no entries."""
        self.chain = b""
        """The chain after the last entry that it had when it was loaded."""
        self._offsets = array("I")  # of missing numbers: where the next record begins

    def __del__(self) -> None:
        os.close(self.fd)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def end(self) -> int:
        """The number after its last."""
        return self.first + len(self._offsets)

    @classmethod
    def create(cls, path: Path) -> Segment:
        """A new file, or one emptied. Raises `OSError`."""
        return cls(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    # -- loading -------------------------------------------------------------------------

    @classmethod
    def load(cls, path: Path, *, synced: int = 0, writable: bool = True) -> Segment:
        """Find the entries of a file; bodies are checked beyond the number `synced`."""
        flags = os.O_RDWR if writable else os.O_RDONLY
        segment = cls(path, os.open(path, flags | os.O_CLOEXEC))
        length = os.fstat(segment.fd).st_size
        window = Window(segment.fd, length)
        with contextlib.suppress(Damaged):
            for at, head, body_at, end in walk(window, length):
                if head.state is not State.BASE:
                    if head.seq > synced:
                        _check(head, window.cut(body_at, end))
                    segment._index(at, head)
                elif segment.size == 0:
                    segment.first = head.seq + 1
                segment.size = end
                segment.chain = head.chain
        segment.torn = length - segment.size
        return segment

    def _index(self, at: int, head: Head) -> None:
        if self.size == 0:
            raise Damaged("the file does not begin with a base")
        missing = head.seq - self.first - len(self._offsets)
        if not 0 <= missing <= MAX_HOLE:
            raise Damaged(f"record {head.seq} follows {self.end - 1}")
        self._offsets.append(at)
        if missing:
            self._offsets.extend([at] * missing)

    def forget_from(self, seq: int) -> None:
        """Leave out the records from this number on, and a torn one; the file keeps them."""
        if self.end < seq:
            return
        index = max(seq - self.first, 0)
        if index < len(self):
            self.size = self._offsets[index]
            del self._offsets[index:]
        self.torn = 0

    def truncate(self) -> None:
        """Cut off the file what is behind the last entry. Raises `OSError`."""
        os.ftruncate(self.fd, self.size)
        self.torn = 0

    # -- writing -------------------------------------------------------------------------

    def append(self, seq: int, previous: bytes, head: bytes, body: bytes) -> None:
        """Write one record whole or not at all. Raises `OSError`.

        `previous` is the chain before it, stored only where a number is missing before.
        """
        at, offsets = self.size, self._offsets
        missing = seq - self.first - len(offsets)
        if offsets and not missing:
            self.size = self.write([head, body], at)
            offsets.append(at)
            return
        self.size = self.write([base(seq - 1, previous), head, body], at)
        if not offsets:
            self.first, missing = seq, 0
        offsets.extend([at + HEAD_BYTES] * (missing + 1))

    def write(self, parts: list[bytes], at: int) -> int:
        """Write behind the last entry; the offset after it.

        Raises `OSError`, and then nothing of it stays.
        """
        total = sum(map(len, parts))
        try:
            written = os.pwritev(self.fd, parts, at)
            while written < total:  # the disk is nearly full, or it is more than 2 GiB
                written += os.pwrite(self.fd, b"".join(parts)[written:], at + written)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, at)
            raise
        return at + total

    def extend(self, first: int, offsets: array[int], size: int) -> None:
        """Take in records that were written behind the last one."""
        if not self._offsets:
            self.first = first
        self.size = size
        self._offsets.extend(offsets)

    def sync(self) -> None:
        """Make what is written so far survive a loss of power. Raises `OSError`."""
        size = self.size
        if self.synced < size:
            os.fdatasync(self.fd)
            self.synced = size

    # -- reading -------------------------------------------------------------------------

    def read(self, seq: int, stop: int, max_bytes: int) -> list[Record | Tombstone]:
        """The records from `seq` to before `stop`, until they are `max_bytes` or more.

        Those that are missing, or are not what was written, are left out.
        """
        found: list[Record | Tombstone] = []
        window, total = Window(self.fd, self.size), 0
        index, last = max(seq - self.first, 0), min(stop, self.end) - self.first
        for i in range(index, last):
            at = self._offsets[i]
            if i + 1 < len(self._offsets) and self._offsets[i + 1] == at:
                continue
            try:
                head, body_at, end = window.head(at)
                body = window.cut(body_at, end)
                _check(head, body)
            except Damaged as error:
                log.warning("%s: record %d: %s", self.path.name, self.first + i, error)
                continue
            found.append(head.record(body))
            total += HEAD_BYTES + len(body)
            if total >= max_bytes:
                break
        return found

    def raw(self, seq: int, stop: int, max_bytes: int) -> tuple[bytes, int]:
        """Entries as they are stored, and the number after the last record in them.

        From record `seq`, or the first one here, to before `stop`, until they are `max_bytes`
        or more. Bases come with the record that they are before. Empty beyond the end.
        """
        index, last = max(seq - self.first, 0), min(stop, self.end) - self.first
        begin = end = self._start(index)
        while index < last and end - begin < max_bytes:
            index += 1
            end = self._start(index)
        return _read_all(self.fd, end - begin, begin), self.first + index

    def _start(self, index: int) -> int:
        """Where the record with this index, or the base before it, begins."""
        offsets = self._offsets
        if index == 0 or index >= len(offsets):
            return 0 if index == 0 else self.size
        at = offsets[index]
        missing = index + 1 < len(offsets) and offsets[index + 1] == at
        return at - HEAD_BYTES if missing or offsets[index - 1] == at else at

    def holes(self) -> list[tuple[int, int]]:
        """First and last number of each row of missing records between its own."""
        offsets, found = self._offsets[:], list[tuple[int, int]]()
        if len(set(offsets)) == len(offsets):
            return found
        for index in range(len(offsets) - 1):
            if offsets[index] == offsets[index + 1]:
                _join(found, self.first + index, self.first + index)
        return found

    def entries(self) -> Iterator[Entry]:
        """All that is in the file, bases included. Raises `Damaged` where that breaks off."""
        window = Window(self.fd, self.size)
        for _, head, body_at, end in walk(window, self.size):
            yield head, window.cut(body_at, end) if head.state is State.STORED else None
        if self.torn:
            raise Damaged(f"{self.torn} bytes follow that are no record")


def _join(rows: list[tuple[int, int]], first: int, last: int) -> None:
    """Add numbers behind the last row, or to it if they follow it."""
    if rows and rows[-1][1] >= first - 1:
        first, last = rows[-1][0], max(last, rows.pop()[1])
    rows.append((first, last))


def holes_of(segments: Iterable[Segment], newest: int) -> list[tuple[int, int]]:
    """First and last number of each row of records up to `newest` that are in no segment.

    What is before the first segment was dropped, and is no hole.
    """
    found, end = list[tuple[int, int]](), 0
    for segment in segments:
        if end and segment.first > end:
            _join(found, end, segment.first - 1)
        for first, last in segment.holes():
            _join(found, first, last)
        end = max(end, segment.end)
    if max(end, 1) <= newest:
        _join(found, max(end, 1), newest)
    return [(first, min(last, newest)) for first, last in found if first <= newest]


def _check(head: Head, body: bytes) -> None:
    """Raises `Damaged` when a stored body is not the one that the head is of."""
    if head.state is State.STORED and digest_of(body) != head.digest:
        raise Damaged("the body is not the one that was recorded")
