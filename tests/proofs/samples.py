"""What the tests of proofs share: a small session, its proofs and its export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Entry, Kind, parse_all
from sandcell_gateway.proofs import archive
from sandcell_gateway.proofs.audit import Audit, audit
from sandcell_gateway.proofs.proof import Proof, Statement, key_id, sign
from sandcell_wire.messages import make

SESSION = "0d3a0000-0000-4000-8000-000000000001"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
WHEN = 1.7e9


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def statement(seq: int, chain: bytes, **fields: object) -> Statement:
    made = Statement(
        session=SESSION,
        seq=seq,
        chain=chain.hex(),
        time="2026-01-01T12:00:00Z",
        key=key_id(public(KEY)),
        attestable=True,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def run_cell(journal: Journal, code: str) -> None:
    """What a cell that prints twice leaves: seven records."""
    request = make("shell", "execute_request", {"code": code, "silent": False}, session="c")

    def answer(channel: str, kind: str, content: dict[str, object], owner: str = "") -> None:
        message = make(channel, kind, content, session="i", parent_header=request.header)
        journal.append(message, Kind.KERNEL, owner)

    journal.append(request, Kind.REQUEST, "c")
    answer("iopub", "status", {"execution_state": "busy"})
    answer("iopub", "execute_input", {"code": code, "execution_count": 1})
    answer("iopub", "stream", {"name": "stdout", "text": f"{code} says one\n"})
    answer("iopub", "stream", {"name": "stdout", "text": f"{code} says two\n"})
    answer("iopub", "status", {"execution_state": "idle"})
    answer("shell", "execute_reply", {"status": "ok", "execution_count": 1}, "c")


CELL = 7
"""Records of `run_cell`."""


@dataclass
class Export:
    """An exported history as its parts."""

    journal: bytes = field(repr=False)
    proofs: list[Proof] = field(default_factory=list[Proof])
    keys: dict[str, str] = field(default_factory=lambda: {key_id(public(KEY)): public(KEY)})
    session: str = SESSION

    @property
    def entries(self) -> list[Entry]:
        return list(parse_all(self.journal))

    def write(self, path: Path, pieces: Sequence[bytes] | None = None) -> Path:
        head = archive.facts({"session": self.session}, self.proofs, self.keys, WHEN)
        parts = [
            archive.part(number, data, WHEN)
            for number, data in enumerate(pieces or [self.journal], 1)
        ]
        path.write_bytes(b"".join((head, *parts, archive.END)))
        return path

    def audit(self, path: Path, trusted: dict[str, str] | None = None) -> Audit:
        with archive.open_archive(self.write(path)) as opened:
            return audit(opened, trusted)


def raw(journal: Journal) -> bytes:
    """All entries as they are stored."""
    parts, seq = list[bytes](), 1
    while True:
        data, seq = journal.raw(seq, journal.newest + 1)
        if not data:
            return b"".join(parts)
        parts.append(data)


def example(directory: Path, *, signed: Sequence[int] = (1, 3), cells: int = 3) -> Export:
    """Some cells; after the numbers `signed` of them there is a proof."""
    with Journal(directory, background=False) as journal:
        proofs: list[Proof] = []
        for number in range(1, cells + 1):
            run_cell(journal, f"cell {number}")
            if number in signed:
                proofs.append(sign(statement(*journal.head()), KEY))
        return Export(raw(journal), proofs)
