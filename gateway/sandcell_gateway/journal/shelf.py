"""The segments of one journal: opening, writing at the end, reading, and making room."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

from sandcell_gateway.journal.compaction import condense
from sandcell_gateway.journal.records import Record, Tombstone
from sandcell_gateway.journal.segments import MAX_HOLE, Segment
from sandcell_gateway.journal.store import COMPACT, FULL, is_compact, load_segments, segment_path

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20
"""A segment is closed once it is as large as this, or a sixteenth of `max_bytes`."""

LAG_BYTES = 16 << 20
"""What may be too much, or half of `max_bytes` if that is more, while room is being made."""


class Shelf:
    """One thread appends; another one makes room and syncs; any may read.

    The list of segments is replaced as a whole, so that readers need no lock.
    """

    def __init__(self, directory: Path, max_bytes: int, synced: int) -> None:
        """Open what is there; records up to number `synced` had been synced."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // 16)
        self._lock = threading.Lock()
        self._current: Segment | None = None
        self._has_new_files = False
        self._segments: list[Segment] = []
        self._stored = synced  # the last number that was written
        for segment in load_segments(directory, synced):
            _mend(segment, synced)
            if len(segment):
                self._segments.append(segment)
            elif not segment.sealed:
                _delete(segment)
        if self._segments:
            self._stored = max(self._segments[-1].end - 1, synced)
            if not is_compact(self._segments[-1]):
                self._current = self._segments[-1]

    @property
    def first(self) -> int | None:
        """The lowest number; None when there is none."""
        segments = self._segments
        return segments[0].first if segments else None

    def head(self) -> tuple[int, bytes] | None:
        """The last number, and the chain after it, that were found on opening."""
        return (self._segments[-1].end - 1, self._segments[-1].chain) if self._segments else None

    def close(self) -> None:
        """Forget all segments; their files are closed once nobody reads them."""
        self._segments, self._current = [], None

    # -- writing -------------------------------------------------------------------------

    def append(self, seq: int, previous: bytes, head: bytes, body: bytes) -> bool:
        """Write one record whole or not at all. Raises `OSError`.

        True when that began a segment: there may be too many now.
        """
        current = self._current
        if current is None or current.sealed or current.size >= self._segment_bytes:
            current = Segment.create(segment_path(self._directory, seq, FULL))
            self._current = current
            self._has_new_files = True
        current.append(seq, previous, head, body)
        self._stored = seq
        if len(current) > 1:
            return False
        self._publish(current)
        return True

    def _publish(self, segment: Segment) -> None:
        """It has its first record: readers may know it."""
        with self._lock:
            self._segments = [*self._segments, segment]
        limit = self._max_bytes + max(self._max_bytes // 2, LAG_BYTES)
        while self._closed_bytes() > limit:
            self._drop(self._segments[0])

    def refused(self, newest: int, error: OSError) -> None:
        """Record `newest` could not be written: decide whether to go on in the same file."""
        current = self._current
        if current is not None and len(current):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            current.sealed = not full or newest - current.end >= MAX_HOLE

    def sync(self) -> int:
        """Make all that is written survive a loss of power, up to the number that is returned.

        Raises `OSError`.
        """
        stored, segments = self._stored, self._segments
        if self._has_new_files:
            self._sync_directory()
            self._has_new_files = False
        for segment in segments:
            try:
                segment.sync()
            except OSError:
                # The system tells it once and may have thrown the pages away: no more there.
                segment.sealed = True
                raise
        return stored

    def _sync_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # -- reading -------------------------------------------------------------------------

    def read(self, seq: int, stop: int, max_bytes: int) -> list[Record | Tombstone]:
        """The first records from `seq` on that are left before `stop`; until `max_bytes`."""
        segments = self._segments
        at = bisect_right(segments, seq, key=lambda segment: segment.first) - 1
        for segment in segments[max(at, 0) :]:
            found = segment.read(seq, stop, max_bytes)
            if found:
                return found
        return []

    def view(self) -> Sequence[Segment]:
        """The segments as they are now: what is dropped later can still be read from them."""
        return self._segments

    def raw(
        self, seq: int, stop: int, max_bytes: int, view: Sequence[Segment] | None = None
    ) -> tuple[bytes, int]:
        """Entries as they are stored (`Segment.raw`), of the first segment that has some."""
        segments = self._segments if view is None else view
        at = bisect_right(segments, seq, key=lambda segment: segment.first) - 1
        for segment in segments[max(at, 0) :]:
            if seq < segment.end and segment.first < stop:
                return segment.raw(seq, stop, max_bytes)
        return b"", stop

    # -- making room ---------------------------------------------------------------------

    def is_full(self) -> bool:
        """Whether the files that are closed leave too little room for the one that is not."""
        return self._closed_bytes() > self._max_bytes - self._segment_bytes

    def _closed_bytes(self) -> int:
        return sum(s.size for s in self._segments if s is not self._current)

    def shrink(self) -> bool:
        """Drop the oldest compacted segment or compact the oldest full one; False: none is left."""
        compact = [s for s in self._segments if is_compact(s)]
        full = [s for s in self._segments if not is_compact(s) and s is not self._current]
        if compact and (not full or sum(s.size for s in compact) > self._max_bytes // 4):
            self._drop(compact[0])
        elif full:
            try:
                self._compact(full[0], compact[-1] if compact else None)
            except OSError as error:
                log.warning("%s cannot be compacted: %s", full[0].path.name, error)
                self._drop(self._segments[0])
        return bool(compact or full)

    def _compact(self, source: Segment, last: Segment | None) -> None:
        """Move what stays of a segment to the last compacted one, or to a new one."""
        fits = (
            last is not None
            and not last.sealed
            and last.size < self._segment_bytes
            and source.first - last.end <= MAX_HOLE
        )
        path = segment_path(self._directory, source.first, COMPACT)
        target = last if last is not None and fits else Segment.create(path)
        replaced = False
        try:
            commit = condense(source, target)
            self._sync_directory()
            replaced = self._replace(source, target, commit, is_new=target is not last)
        finally:
            if replaced:
                _delete(source)
            elif target is last:
                target.truncate()
            else:
                _delete(target)
        # Before the next one is copied: at most one segment is ever in two files.
        self._sync_directory()

    def _replace(
        self, source: Segment, target: Segment, commit: Callable[[], None], *, is_new: bool
    ) -> bool:
        """Let readers find the target instead, unless one of them was dropped meanwhile."""
        with self._lock:
            segments = self._segments
            if source not in segments or (not is_new and target not in segments):
                return False
            commit()
            at = segments.index(source)
            self._segments = [*segments[:at], *([target] if is_new else []), *segments[at + 1 :]]
            return True

    def _drop(self, segment: Segment) -> None:
        with self._lock:
            self._segments = [s for s in self._segments if s is not segment]
        _delete(segment)


def _delete(segment: Segment) -> None:
    with contextlib.suppress(OSError):
        segment.path.unlink()


def _mend(segment: Segment, synced: int) -> None:
    """Cut off what a crash left half written; leave alone what had been whole."""
    if segment.torn:
        log.warning("%s: %d bytes are no record", segment.path.name, segment.torn)
        if segment.end <= synced:
            segment.sealed = True
            return
    try:
        segment.truncate()
    except OSError as error:
        log.warning("%s cannot be written: %s", segment.path.name, error)
        segment.sealed = True
