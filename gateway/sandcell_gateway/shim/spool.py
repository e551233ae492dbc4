"""A command's output on disk: the newest part of both streams, in the order in which it came.

A position is the number of bytes, of both streams together, that came before. The output lies
in files, each named after the position it begins at, with what each stream had given until
then at its head. The older of two goes when a third is begun.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

STDOUT, STDERR = 1, 2
SPOOL_BYTES = 16 << 20
"""Most bytes that are kept of one command."""
READ_BYTES = 256 << 10
"""About what a reader is given at once."""

OUTPUT = struct.Struct("<BQ")
"""Head of a message with output: its stream, and the position behind it."""

_HEAD = struct.Struct("<QQ")
"""Bytes of stdout and stderr before the file."""
_RECORD = struct.Struct("<BI")
"""Stream and length; the data follows."""


@dataclass(frozen=True)
class Chunk:
    """A part of one stream."""

    stream: int
    end: int
    """The position behind it."""
    data: bytes


class Spool:
    """What one command has written. What was there before is found again."""

    def __init__(self, directory: Path, most: int = SPOOL_BYTES) -> None:
        self._directory = directory
        self._most = most
        self.starts = sorted(int(path.stem) for path in directory.glob("*.out"))
        """Where the files begin."""
        self.counts = {STDOUT: 0, STDERR: 0}
        """Bytes that each stream has given in all."""
        self._descriptor = -1
        self._size = 0
        while self.starts and not self._reopen(self.starts[-1]):
            self.path(self.starts.pop()).unlink()  # it was cut short when it was begun

    @property
    def start(self) -> int:
        """The position of the oldest byte that is kept."""
        return self.starts[0] if self.starts else 0

    @property
    def end(self) -> int:
        """The position of the next byte."""
        return sum(self.counts.values())

    def path(self, start: int) -> Path:
        """The file that begins there."""
        return self._directory / f"{start:020d}.out"

    def _reopen(self, start: int) -> bool:
        """Go on with a file, if it has a head; a record that is not whole never came."""
        descriptor = os.open(self.path(start), os.O_RDWR)
        data = os.pread(descriptor, self._most + _HEAD.size, 0)
        if len(data) < _HEAD.size:
            os.close(descriptor)
            return False
        self.counts[STDOUT], self.counts[STDERR] = _HEAD.unpack_from(data)
        at = _HEAD.size
        while at + _RECORD.size <= len(data):
            stream, length = _RECORD.unpack_from(data, at)
            if at + _RECORD.size + length > len(data):
                break
            self.counts[stream] += length
            at += _RECORD.size + length
        os.ftruncate(descriptor, at)
        self._descriptor, self._size = descriptor, at
        return True

    def append(self, stream: int, data: bytes) -> None:
        """Keep what a stream gives. Raises `OSError`; then nothing of it is kept."""
        record = _RECORD.pack(stream, len(data)) + data
        is_full = self._size > _HEAD.size and self._size + len(record) > self._most // 2
        if self._descriptor < 0 or is_full:
            self._rotate()
        _write(self._descriptor, record, self._size)
        self._size += len(record)
        self.counts[stream] += len(data)

    def _rotate(self) -> None:
        start = self.end
        descriptor = os.open(self.path(start), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write(descriptor, _HEAD.pack(self.counts[STDOUT], self.counts[STDERR]), 0)
        except OSError:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor, self._size = descriptor, _HEAD.size
        self.starts.append(start)
        while len(self.starts) > 2:
            self.path(self.starts.pop(0)).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the file. Harmless when done before."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def stored(self) -> int:
        """Bytes on the disk, about."""
        return self.end - self.start


def _write(descriptor: int, data: bytes, at: int) -> None:
    """All of it, or nothing. Raises `OSError`."""
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], at + written)
    except OSError:
        os.ftruncate(descriptor, at)
        raise


class SpoolReader:
    """Reads from a position on; a context manager."""

    def __init__(self, spool: Spool, after: int) -> None:
        self._spool = spool
        self.at = min(max(after, 0), spool.end)
        """The position of what comes next."""
        self.lost = 0
        """Bytes that were dropped before they could be read, and not yet told of."""
        self._descriptor = -1
        self._offset = 0
        self._position = 0
        """The position at `_offset`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def read(self) -> list[Chunk]:
        """What comes next, as far as it is there."""
        chunks: list[Chunk] = []
        size = 0
        while self.at < self._spool.end and size < READ_BYTES:
            if self._descriptor < 0:
                self._open()
            chunk = self._next()
            if chunk is None:
                self._close()  # the next file goes on
            elif chunk.data:
                chunks.append(chunk)
                size += len(chunk.data)
        return chunks

    def _open(self) -> None:
        self.lost += max(0, self._spool.start - self.at)
        self.at = max(self.at, self._spool.start)
        start = max(start for start in self._spool.starts if start <= self.at)
        self._descriptor = os.open(self._spool.path(start), os.O_RDONLY)
        self._offset, self._position = _HEAD.size, start

    def _next(self) -> Chunk | None:
        """The next record, without what was read of it before; None at the file's end."""
        head = os.pread(self._descriptor, _RECORD.size, self._offset)
        if len(head) < _RECORD.size:
            return None
        stream, length = _RECORD.unpack(head)
        end = self._position + length
        skipped = min(max(self.at - self._position, 0), length)
        data = os.pread(self._descriptor, length - skipped, self._offset + _RECORD.size + skipped)
        self._offset += _RECORD.size + length
        self._position = end
        self.at = max(self.at, end)
        return Chunk(stream, end, data)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
