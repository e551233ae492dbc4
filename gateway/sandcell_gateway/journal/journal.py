"""The session's append-only record of every message.

Numbers start at 1 and rise by one. What is promised:

* A record is in the page cache before `append` returns: no process's death loses one.
* Power loss loses at most what was appended in the last `SYNC_SECONDS` seconds (or since
  `SYNC_BYTES` bytes, if those came sooner) and while the disk was syncing, which goes on
  in a thread: appending never waits for it.
* All files together have at most `max_bytes`, or what the newest record needs if that is
  more, as soon as the thread has made room; half as much again, or 16 MiB, until then.
  Output's oldest bodies go first and leave tombstones; requests and replies of
  at most `compaction.KEEP_BYTES` stay as long as all that is so compacted has at most a
  quarter of `max_bytes`. Beyond that the oldest segments go whole, and the first one that
  is left begins with the chain that it continues.
* What the disk refuses can be read while it is among the last `RECENT_BYTES`, and is a
  hole in the numbers afterwards. The chain covers it, and goes on behind it.
* Memory: `RECENT_BYTES` and the newest record, and four bytes a record for the index.

One thread appends. Any may read, without waiting for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from sandcell_gateway.journal.mark import Mark
from sandcell_gateway.journal.records import Kind, Record, Tombstone, seal
from sandcell_gateway.journal.segments import Segment, holes_of
from sandcell_gateway.journal.shelf import Shelf
from sandcell_gateway.journal.upkeep import Trouble, Upkeep
from sandcell_wire import frames
from sandcell_wire.messages import Message

MAX_BYTES = 256 << 20
RECENT_BYTES = 8 << 20
"""Newest records also kept in memory, for clients that keep up."""
RECORD_OVERHEAD = 400
"""Bytes of memory that a recent record takes besides its frame."""
READ_BYTES = 256 << 10
"""Bytes after which one `read` gives what it has."""
SYNC_SECONDS = 1.0
SYNC_BYTES = 16 << 20
CALM_SECONDS = 5.0
"""Trouble with the disk is over when it has worked for so long."""


class Journal:
    """Append and read records by number. A context manager; closing keeps the files."""

    def __init__(
        self, directory: Path, *, max_bytes: int = MAX_BYTES, background: bool = True
    ) -> None:
        """Open or make it; without `background` the caller calls `upkeep`."""
        self._recent: deque[Record] = deque()
        self._recent_bytes = 0
        self._appended = 0  # bytes; written by the appending thread only
        self._sync_began = 0  # what it was then; written by whoever syncs
        self.on_trouble: Callable[[str | None], None] = lambda text: None
        """Called with what is wrong with the disk, or None when it is over: once per change,
        in the thread that found it."""
        self._trouble = Trouble(CALM_SECONDS, self._tell)
        self._syncing = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mark = Mark(directory)
        self._shelf = Shelf(directory, max_bytes, self._mark.synced)
        marked = self._mark.seq, self._mark.chain
        self._head = max(self._shelf.head() or marked, marked)
        self._upkeep = Upkeep(self.upkeep, SYNC_SECONDS) if background else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Sync and close the files; nothing can be read or appended afterwards."""
        if self._upkeep is not None:
            self._upkeep.close()
        self._shelf.close()
        self._mark.close()
        self._recent.clear()

    def _tell(self, text: str | None) -> None:
        self.on_trouble(text)

    # -- what it holds -------------------------------------------------------------------

    @property
    def newest(self) -> int:
        """The number of the last record; 0 when there is none."""
        return self._head[0]

    @property
    def oldest(self) -> int:
        """The lowest number of which something is left; `newest` + 1 when there is none."""
        first, recent = self._shelf.first, self._recent
        known = [seq for seq in (first, recent[0].seq if recent else None) if seq is not None]
        return min(known, default=self.newest + 1)

    @property
    def appended(self) -> int:
        """Bytes written since it was opened."""
        return self._appended

    def head(self) -> tuple[int, bytes]:
        """How many records there ever were, and the chain after the last."""
        return self._head

    # -- appending -----------------------------------------------------------------------

    def append(self, message: Message, kind: Kind, owner: str = "") -> Record:
        """Number and store one message. Never fails for the disk's sake."""
        last, previous = self._head
        seq, now = last + 1, time.time()
        frame = frames.encode(seq, message)
        head, chain = seal(seq, now, kind, owner.encode(), frame, previous)
        record = Record(seq, now, kind, owner, frame)
        self._remember(record)
        self._head = seq, chain
        try:
            has_begun = self._shelf.append(seq, previous, head, frame)
        except OSError as error:
            self._refused(error, now)
        else:
            self._written(len(head) + len(frame), is_urgent=has_begun and self._shelf.is_full())
            if self._trouble:
                self._trouble.works("write", now)
        return record

    def _remember(self, record: Record) -> None:
        self._recent.append(record)
        self._recent_bytes += len(record.frame) + RECORD_OVERHEAD
        while self._recent_bytes > RECENT_BYTES and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popleft().frame) + RECORD_OVERHEAD

    def _written(self, count: int, *, is_urgent: bool) -> None:
        self._appended += count
        if self._upkeep is not None:
            if is_urgent or self._appended - self._sync_began >= SYNC_BYTES:
                self._upkeep.now()
            else:
                self._upkeep.soon()

    def _refused(self, error: OSError, now: float) -> None:
        """The disk did not take the newest record: its number is remembered, and it goes on."""
        self._mark.advance(*self._head)
        self._shelf.refused(self.newest, error)
        text = f"the session's journal cannot be written ({error.strerror})"
        self._trouble.found("write", text, now)

    # -- reading -------------------------------------------------------------------------

    def recent(self, seq: int) -> Record | None:
        """The record with this number if it is in memory."""
        try:
            index = seq - self._recent[0].seq
            record = self._recent[index] if index >= 0 else None
        except IndexError:
            return None
        # In another thread the window may have moved on meanwhile.
        return record if record is not None and record.seq == seq else None

    def get(self, seq: int) -> Record | Tombstone | None:
        """The record with this number, what is left of it, or None when it is missing."""
        record = self.recent(seq)
        if record is not None:
            return record
        found = self.read(seq, 1)
        return found[0] if found and found[0].seq == seq else None

    def read(self, seq: int, max_bytes: int = READ_BYTES) -> list[Record | Tombstone]:
        """What is left from this number on: one record, and more up to `max_bytes`.

        Numbers that are left out in it are missing. Empty when nothing is left. May be
        called in any thread, and may wait for the disk.
        """
        while True:
            recent = self._recent[0] if self._recent else None
            if recent is None or seq < recent.seq:
                found = self._shelf.read(seq, recent.seq if recent else self.newest + 1, max_bytes)
                return found or ([recent] if recent else [])
            record = self.recent(seq)
            if record is not None:
                return [record]
            if seq > self.newest:
                return []

    def raw(
        self,
        seq: int,
        stop: int,
        max_bytes: int = READ_BYTES,
        view: Sequence[Segment] | None = None,
    ) -> tuple[bytes, int]:
        """Entries as they are stored, from record `seq` to before `stop`; where to go on.

        About `max_bytes` of them; empty when nothing is left. What the disk refused is not
        among them. With a `view` what is dropped meanwhile is read nevertheless. May be
        called in any thread.
        """
        return self._shelf.raw(seq, min(stop, self.newest + 1), max_bytes, view)

    def view(self) -> Sequence[Segment]:
        """What is stored now, for `raw`; holds the files open until it is forgotten."""
        return self._shelf.view()

    def holes(self, newest: int) -> list[tuple[int, int]]:
        """First and last number of each row up to `newest` that the disk refused or has lost."""
        return holes_of(self._shelf.view(), newest)

    def scan(self) -> Iterator[Record | Tombstone]:
        """Everything that is left, oldest first."""
        seq = self.oldest
        while batch := self.read(seq):
            yield from batch
            seq = batch[-1].seq + 1

    # -- upkeep --------------------------------------------------------------------------

    def upkeep(self) -> None:
        """Make room and sync, as the thread does it, which must be the only one that does."""
        while self._shelf.is_full() and self._shelf.shrink():
            pass
        self.sync()

    def sync(self) -> None:
        """Make everything that was appended survive a loss of power; tells of a failure.

        May be called in any thread, and waits for the disk.
        """
        with self._syncing:
            self._sync()

    def _sync(self) -> None:
        self._sync_began, head = self._appended, self._head
        try:
            synced = self._shelf.sync()
        except OSError as error:
            text = f"the session's journal cannot be synced ({error.strerror})"
            self._trouble.found("sync", text, time.time())
        else:
            self._mark.advance(*head, synced=synced)
            self._trouble.works("sync", time.time())
