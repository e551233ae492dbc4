"""A journal's directory: which files it has, in order, and how they are read offline.

`NUMBER.journal` holds every body, `NUMBER.compact` mostly tombstones; all compacted
files come before all others. While a file is compacted its records are in both; they
count in the full one until that is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sandcell_gateway.journal.mark import FILE, Mark
from sandcell_gateway.journal.records import Damaged, Entry, base, parse
from sandcell_gateway.journal.segments import Segment

FULL = ".journal"
COMPACT = ".compact"


def segment_path(directory: Path, first: int, suffix: str) -> Path:
    """The file of a segment that begins with this number."""
    return directory / f"{first:020d}{suffix}"


def is_compact(segment: Segment) -> bool:
    """Whether it was compacted."""
    return segment.path.suffix == COMPACT


def load_segments(directory: Path, synced: int, *, writable: bool = True) -> list[Segment]:
    """All segments in order; a half-made compaction is left out."""
    compact, full = (
        [
            Segment.load(path, synced=synced, writable=writable)
            for path in sorted(directory.glob(f"*{suffix}"))
        ]
        for suffix in (COMPACT, FULL)
    )
    begin = next((segment.first for segment in full if len(segment)), None)
    if begin is not None:
        for segment in compact:
            segment.forget_from(begin)
    return compact + full


def stored_entries(directory: Path) -> Iterator[Entry]:
    """Everything that is stored, for `verify`; changes nothing.

    Raises `Damaged` at the place where bytes are no journal. Of a journal that is being
    written the last record may be half there, which looks the same.
    """
    mark = Mark(directory, writable=False)
    seq = 0
    for segment in load_segments(directory, mark.synced, writable=False):
        for head, body in segment.entries():
            yield head, body
            seq = head.seq
    if mark.damaged:
        raise Damaged(f"the file {FILE!r} is damaged")
    if mark.seq >= seq:
        yield parse(base(mark.seq, mark.chain))[0], None
