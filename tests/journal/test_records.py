"""The record format: heads that cannot be changed unnoticed, tombstones that keep the chain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.journal.records import (
    GENESIS,
    HEAD_BYTES,
    Damaged,
    Head,
    Kind,
    Record,
    State,
    Tombstone,
    base,
    digest_of,
    link,
    parse,
    seal,
    tombstone,
)

seqs = st.integers(1, 2**64 - 1)
times = st.floats(allow_nan=False)
kinds = st.sampled_from(Kind)
owners = st.text(max_size=64)
chains = st.binary(min_size=32, max_size=32)


@given(seqs, times, kinds, owners, st.binary(max_size=200), chains)
def test_what_is_sealed_is_parsed(
    seq: int, when: float, kind: Kind, owner: str, body: bytes, previous: bytes
) -> None:
    data, chain = seal(seq, when, kind, owner.encode(), body, previous)
    head, end = parse(b"before" + data + body, 6)
    assert end == 6 + len(data) == 6 + HEAD_BYTES + len(owner.encode())
    assert head == Head(State.STORED, kind, seq, when, owner, len(body), digest_of(body), chain)
    assert link(previous, head) == chain
    assert head.record(body) == Record(seq, when, kind, owner, body)


@given(seqs, times, kinds, owners, st.binary(max_size=200), chains)
def test_a_tombstone_keeps_everything_but_the_body(
    seq: int, when: float, kind: Kind, owner: str, body: bytes, previous: bytes
) -> None:
    data, chain = seal(seq, when, kind, owner.encode(), body, previous)
    head, _ = parse(tombstone(data))
    assert link(previous, head) == head.chain == chain
    assert head.record(b"") == Tombstone(seq, when, kind, owner, len(body))


@given(owners, st.data())
def test_a_flipped_bit_in_a_head_is_found(owner: str, data: st.DataObject) -> None:
    stored, _ = seal(7, 1.5, Kind.KERNEL, owner.encode(), b"body", GENESIS)
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))
    flipped = bytearray(stored)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Damaged):
        parse(bytes(flipped) + b"body")


@given(st.integers(0, HEAD_BYTES + 2))
def test_a_head_that_is_cut_is_no_head(length: int) -> None:
    stored, _ = seal(7, 1.5, Kind.KERNEL, b"abc", b"body", GENESIS)
    with pytest.raises(Damaged):
        parse(stored[:length])


def test_a_base_is_no_record_but_says_where_the_next_one_continues() -> None:
    head, end = parse(base(41, b"c" * 32))
    assert (head.state, head.kind, head.seq, head.chain) == (State.BASE, None, 41, b"c" * 32)
    assert end == HEAD_BYTES


def test_the_chain_depends_on_every_value_and_on_what_came_before() -> None:
    values = (7, 1.5, Kind.KERNEL, b"a", b"body", GENESIS)
    others = (8, 2.5, Kind.SHIM, b"b", b"Body", b"x" * 32)
    chains = {seal(*values)[1]}
    for index, other in enumerate(others):
        changed = [*values]
        changed[index] = other
        chains.add(seal(*changed)[1])  # type: ignore[arg-type]
    # A byte moved from the owner to the body is a change, too.
    chains.add(seal(7, 1.5, Kind.KERNEL, b"", b"abody", GENESIS)[1])
    assert len(chains) == len(values) + 2
