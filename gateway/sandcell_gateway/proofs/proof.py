"""What a gateway signs about a session's journal, and whether a signature is right; pure.

The statement is a line of JSON, with sorted keys and without blanks. It is kept as it was
signed, so that nobody has to make the same bytes again. What is signed with Ed25519 is
`CONTEXT` and the statement, so that the signature can never be taken for one of
something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

VERSION = 1
CONTEXT = b"sandcell journal proof\n"
KEY_ID_DIGITS = 32
"""Enough that nobody can make another key with the same id."""
MAX_HOLES = 64
"""Most rows of missing records in a statement. Beyond them it claims nothing."""

Holes = tuple[tuple[int, int], ...]


class NotAProof(ValueError):
    """Text that is no statement of this version; says what was expected."""


class WrongSignature(Exception):
    """The statement is not what the key's owner signed."""


@dataclass(frozen=True)
class Statement:
    """What is said: of this session there were so many records, and their chain was this."""

    session: str
    seq: int
    """How many records there were ever, dropped ones included: the newest one's number."""
    chain: str
    """The chain after record `seq`, in hexadecimal digits."""
    time: str
    """When it was signed by the gateway's clock: RFC 3339, UTC."""
    key: str
    """The id of the key that it was signed with."""
    attestable: bool
    """False when the session's engine isolates nothing: its code could have been the one
    who wrote the journal."""
    holes: Holes = ()
    """First and last number of each row of records that could not be stored."""

    @property
    def text(self) -> str:
        """As it is signed."""
        return json.dumps(
            {"version": VERSION, **asdict(self)}, sort_keys=True, separators=(",", ":")
        )

    @classmethod
    def parse(cls, text: str) -> Statement:
        """Read one. Raises `NotAProof`."""
        try:
            found: object = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise NotAProof("a proof's statement is a JSON object")
        fields = cast("dict[str, Any]", found)
        if fields.pop("version", None) != VERSION:
            raise NotAProof(f"expected a statement of version {VERSION}; get a newer sandcell")
        return cls._of(fields)

    @classmethod
    def _of(cls, fields: Mapping[str, Any]) -> Statement:
        try:
            holes = tuple((int(first), int(last)) for first, last in fields["holes"])
            values: dict[str, Any] = {**fields, "holes": holes, "seq": int(fields["seq"])}
            made = cls(**values)
            datetime.fromisoformat(made.time)
            bytes.fromhex(made.chain)
        except (KeyError, TypeError, ValueError) as error:
            raise NotAProof(f"a statement with the fields of version {VERSION}: {error}") from error
        return made


@dataclass(frozen=True)
class Proof:
    """A statement and its signature."""

    text: str
    """The statement as it was signed."""
    signature: str
    """In hexadecimal digits."""

    @property
    def statement(self) -> Statement:
        """What it says, whoever signed it. Raises `NotAProof`."""
        return Statement.parse(self.text)

    def check(self, public_key: str) -> Statement:
        """What it says, if the owner of this key has signed it.

        Raises `WrongSignature` or `NotAProof`.
        """
        statement = self.statement
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
            key.verify(bytes.fromhex(self.signature), CONTEXT + self.text.encode())
        except (InvalidSignature, ValueError) as error:
            raise WrongSignature("its signature is not the key's") from error
        return statement


def sign(statement: Statement, key: Ed25519PrivateKey) -> Proof:
    """The proof of a statement."""
    text = statement.text
    return Proof(text, key.sign(CONTEXT + text.encode()).hex())


def key_id(public_key: str) -> str:
    """The name of a public key, which is given in hexadecimal digits."""
    return hashlib.sha256(bytes.fromhex(public_key)).hexdigest()[:KEY_ID_DIGITS]


def bounded(holes: list[tuple[int, int]]) -> Holes:
    """At most `MAX_HOLES` rows; the last one then covers all that follow."""
    if len(holes) <= MAX_HOLES:
        return tuple(holes)
    return (*holes[: MAX_HOLES - 1], (holes[MAX_HOLES - 1][0], holes[-1][1]))


def moment(when: datetime) -> str:
    """A time as statements have it."""
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
