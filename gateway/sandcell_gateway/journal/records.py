"""What the journal's files consist of; pure.

A file is a row of entries. An entry has a head of `HEAD_BYTES`, the owner's client id,
and, if it is stored, its body: the channel frame exactly as clients receive it, so that
a replay sends bytes from the disk unchanged. Little-endian:

    magic 4, crc u32, chain 32, state u8, | kind u8, owner's length u16, body's length u64,
    number u64, unix time f64, BLAKE3 of the body 32, owner

The chain of a record is BLAKE3(chain of the record before || everything after the |), so
it covers the body by its digest, and a tombstone, which keeps the head and drops the
body, leaves it whole. The CRC-32 covers everything after itself but the body: a damaged
head is never believed. Two kinds of change must be told apart for this: the CRC finds
accidents in one head alone, the chain finds any change, but only with the record before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from blake3 import blake3

MAGIC = b"SCJ1"
HEAD_BYTES = 100
DIGEST_BYTES = 32
GENESIS = bytes(DIGEST_BYTES)
"""The chain before the first record."""

_HEAD = struct.Struct("<4sI32sBBHQQd32s")
_COVERED = struct.Struct("<BHQQd32s")
_CRC = struct.Struct("<I")
_CHAINED = _HEAD.size - _COVERED.size
"""Where the part begins that the chain covers."""
assert _HEAD.size == HEAD_BYTES


class Damaged(ValueError):
    """Bytes that are no entry of a journal; the text says why."""


class Kind(IntEnum):
    """Where a record came from."""

    REQUEST = 1
    """A client's message, written before it is sent to the kernel; not replayed to clients."""
    KERNEL = 2
    """A message of the kernel."""
    SHIM = 3
    """A message that the shim made in the kernel's place."""


class State(IntEnum):
    """What follows a head."""

    STORED = 0
    """The body."""
    DROPPED = 1
    """Nothing: a tombstone."""
    BASE = 2
    """Nothing: no record, but the number and the chain that the next record continues."""


_KINDS = {int(kind): kind for kind in Kind}
_STATES = {int(state): state for state in State}


def is_visible(kind: Kind, owner: str, client: str) -> bool:
    """Whether a channel of `client` carries such a record."""
    return kind is not Kind.REQUEST and owner in ("", client)


class Record(NamedTuple):
    """One journaled message."""

    seq: int
    time: float
    """Unix time in seconds at which it was recorded."""
    kind: Kind
    owner: str
    """The client that it is for (or came from); empty: every client."""
    frame: bytes

    def visible_to(self, client: str) -> bool:
        """Whether a channel of `client` carries this record."""
        return is_visible(self.kind, self.owner, client)


class Tombstone(NamedTuple):
    """What is left of a record whose body was dropped."""

    seq: int
    time: float
    kind: Kind
    owner: str
    length: int
    """Bytes that the frame had."""

    def visible_to(self, client: str) -> bool:
        """Whether a channel of `client` would have carried the record."""
        return is_visible(self.kind, self.owner, client)


class Head(NamedTuple):
    """A head as it is stored."""

    state: State
    kind: Kind | None
    """None for a base."""
    seq: int
    time: float
    owner: str
    length: int
    """Bytes of the body, dropped or not."""
    digest: bytes
    """BLAKE3 of the body."""
    chain: bytes

    def record(self, body: bytes) -> Record | Tombstone:
        """The record as readers get it."""
        assert self.kind is not None
        if self.state is State.DROPPED:
            return Tombstone(self.seq, self.time, self.kind, self.owner, self.length)
        return Record(self.seq, self.time, self.kind, self.owner, body)


Entry = tuple[Head, bytes | None]
"""A head and its body; None for tombstones and bases, which have none."""


def digest_of(body: bytes | memoryview) -> bytes:
    """BLAKE3 of a body. One thread: a second one gains nothing below tens of megabytes."""
    return blake3(body).digest()


def seal(
    seq: int, when: float, kind: Kind, owner: bytes, body: bytes, previous: bytes
) -> tuple[bytes, bytes]:
    """Head and owner of a new record as they are stored, and the chain after it."""
    covered = _COVERED.pack(kind, len(owner), len(body), seq, when, blake3(body).digest()) + owner
    chain = blake3(previous + covered).digest()
    return _with_crc(b"%b\x00%b" % (chain, covered)), chain


def base(seq: int, chain: bytes) -> bytes:
    """The entry that says where the next record continues: after `seq`, from `chain`."""
    return _with_crc(chain + bytes((State.BASE,)) + _COVERED.pack(0, 0, 0, seq, 0.0, GENESIS))


def tombstone(head: bytes) -> bytes:
    """A stored head (with its owner) as the head of a record whose body is dropped."""
    return _with_crc(b"%b\x01%b" % (head[8:40], head[41:]))


def _with_crc(rest: bytes) -> bytes:
    return b"%b%b%b" % (MAGIC, _CRC.pack(zlib.crc32(rest)), rest)


def parse(buffer: bytes, at: int = 0) -> tuple[Head, int]:
    """The head at this place and where its body begins. Raises `Damaged`.

    A buffer that ends within the head raises `Short`.
    """
    if len(buffer) - at < HEAD_BYTES:
        raise Short
    fields = _HEAD.unpack_from(buffer, at)
    magic, crc, chain, state, kind, owner_length, length, seq, when, digest = fields
    if magic != MAGIC:
        raise Damaged("no head where one was expected")
    end = at + HEAD_BYTES + owner_length
    if len(buffer) < end:
        raise Short
    if zlib.crc32(buffer[at + 8 : end]) != crc:
        raise Damaged("a head that does not fit its check sum")
    try:
        owner = buffer[at + HEAD_BYTES : end].decode() if owner_length else ""
        known = _STATES[state]
        head = Head(
            known,
            None if known is State.BASE else _KINDS[kind],
            seq,
            when,
            owner,
            length,
            digest,
            chain,
        )
    except (KeyError, UnicodeDecodeError):
        raise Damaged("a head with values that this version does not know") from None
    return head, end


def parse_all(data: bytes) -> Iterator[Entry]:
    """The entries in these bytes, whole ones: head and body. Raises `Damaged`."""
    at = 0
    while at < len(data):
        head, body_at = parse(data, at)
        at = body_at + (head.length if head.state is State.STORED else 0)
        if at > len(data):
            raise Damaged("the bytes end within a body")
        yield head, data[body_at:at] if head.state is State.STORED else None


class Short(Damaged):
    """The bytes end within a head."""

    def __init__(self) -> None:
        super().__init__("the file ends within a head")


def link(previous: bytes, head: Head) -> bytes:
    """The chain that a record must have after `previous`."""
    assert head.kind is not None
    owner = head.owner.encode()
    covered = _COVERED.pack(head.kind, len(owner), head.length, head.seq, head.time, head.digest)
    return blake3(previous + covered + owner).digest()
