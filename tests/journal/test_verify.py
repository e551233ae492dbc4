"""Verification names the first record that differs, and says what it cannot know."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandcell_gateway.journal.records import GENESIS, Entry, Kind, base, parse, seal, tombstone
from sandcell_gateway.journal.verify import ChainError, verify

Entries = list[Entry]


def chained(count: int) -> Entries:
    entries: Entries = []
    chain = GENESIS
    for seq in range(1, count + 1):
        body = b"body %d" % seq
        data, chain = seal(seq, 1.0, Kind.KERNEL, b"", body, chain)
        entries.append((parse(data)[0], body))
    return entries


def buried(entry: Entry) -> Entry:
    head, body = entry
    assert body is not None
    data, _ = seal(head.seq, head.time, Kind.KERNEL, b"", body, GENESIS)
    tomb, _ = parse(tombstone(data))
    return tomb._replace(chain=head.chain), None


def rebased(seq: int, chain: bytes) -> Entry:
    return parse(base(seq, chain))[0], None


def test_a_whole_chain_is_whole() -> None:
    entries = chained(5)
    found = verify(entries)
    assert (found.first, found.seq, found.chain) == (1, 5, entries[-1][0].chain)
    assert (found.tombstones, found.holes) == (0, [])
    assert verify([]).seq == 0


def test_it_may_start_in_the_middle_from_a_known_value() -> None:
    entries = chained(5)
    start = 2, entries[1][0].chain
    assert (verify(entries[2:], start).first, verify(entries[2:], start).seq) == (3, 5)
    assert verify([rebased(*start), *entries[2:]]).first == 3
    with pytest.raises(ChainError, match="record 3"):
        verify(entries[2:], (2, GENESIS))
    with pytest.raises(ChainError, match="record 1"):
        verify(entries[2:])


def test_tombstones_keep_the_chain() -> None:
    entries = chained(5)
    entries[1:4] = map(buried, entries[1:4])
    assert (verify(entries).tombstones, verify(entries).chain) == (3, entries[-1][0].chain)


def _set(index: int, **fields: object) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        head, body = entries[index]
        entries[index] = head._replace(**fields), body  # type: ignore[arg-type]

    return change


def _body(entries: Entries) -> None:
    entries[2] = entries[2][0], b"BODY 3"


def _forged(entries: Entries) -> None:
    """A record that fits its own body and its predecessor, but not what follows."""
    data, _ = seal(3, 1.0, Kind.KERNEL, b"", b"forged", entries[1][0].chain)
    entries[2] = parse(data)[0], b"forged"


def _go_back(entries: Entries) -> None:
    """Every link fits, but record 2 is there twice."""
    entries[2:2] = [rebased(1, entries[0][0].chain), entries[1]]


def _skip(entries: Entries) -> None:
    """Every link fits, but there is no record 3."""
    data, _ = seal(4, 1.0, Kind.KERNEL, b"", b"body 4", entries[1][0].chain)
    entries[2:] = [(parse(data)[0], b"body 4")]


CHANGES: dict[str, tuple[Callable[[Entries], None], int]] = {
    "time": (_set(2, time=2.0), 3),
    "kind": (_set(2, kind=Kind.SHIM), 3),
    "owner": (_set(2, owner="b"), 3),
    "length": (_set(2, length=99), 3),
    "digest": (_set(2, digest=b"d" * 32), 3),
    "chain": (_set(2, chain=b"c" * 32), 3),
    "number": (_set(2, seq=4), 3),
    "body": (_body, 3),
    "forged": (_forged, 4),
    "removed": (lambda entries: entries.__delitem__(2), 3),
    "swapped": (lambda entries: entries.__setitem__(slice(2, 4), entries[3:1:-1]), 3),
    "twice": (lambda entries: entries.insert(2, entries[1]), 3),
    "another base": (lambda entries: entries.insert(2, rebased(2, b"x" * 32)), 2),
    "a number that was never given": (_skip, 3),
    "a base that goes back": (_go_back, 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_and_named(change: str) -> None:
    entries = chained(5)
    apply, first = CHANGES[change]
    apply(entries)
    with pytest.raises(ChainError) as caught:
        verify(entries)
    assert caught.value.seq == first


def test_a_missing_body_is_no_tombstone() -> None:
    entries = chained(3)
    entries[1] = entries[1][0], None
    with pytest.raises(ChainError, match="record 2"):
        verify(entries)


def test_a_hole_is_bridged_and_listed() -> None:
    entries = chained(9)
    entries[3:7] = [rebased(7, entries[6][0].chain)]
    found = verify(entries)
    assert (found.holes, found.seq) == ([(4, 7)], 9)


def test_a_base_within_the_chain_changes_nothing() -> None:
    entries = chained(4)
    entries.insert(2, rebased(2, entries[1][0].chain))
    assert (verify(entries).seq, verify(entries).holes) == (4, [])
