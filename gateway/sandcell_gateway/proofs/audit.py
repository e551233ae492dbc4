"""Judges an exported history: what is proven, by whom, and what differs first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sandcell_gateway.journal.records import Damaged, Record, Tombstone
from sandcell_gateway.proofs.archive import Archive
from sandcell_gateway.proofs.check import Difference, Examination
from sandcell_gateway.proofs.proof import NotAProof, Proof, Statement, WrongSignature
from sandcell_gateway.shim.executions import Execution
from sandcell_gateway.shim.past import Past, read_past
from sandcell_wire.execution import first_line

SHOWN_CODE = 60
"""Characters of an execution's code that are shown."""


@dataclass(frozen=True)
class Ran:
    """An execution, as people know it."""

    number: int
    """1 for the first one in the file."""
    code: str
    """The beginning of its first line."""


@dataclass
class Audit:
    """What was found."""

    session: str
    first: int
    """The lowest number that is there."""
    last: int
    """The number up to which the chain is whole."""
    tombstones: int
    holes: list[tuple[int, int]]
    difference: Difference | None
    ran: Ran | None
    """The execution that the difference belongs to, if it is known."""
    confirmed: list[Statement]
    """Those that the journal fits, in the order of their numbers."""
    wrong: list[str] = field(default_factory=list[str])
    """What is wrong with proofs, one sentence each."""
    unknown: list[Statement] = field(default_factory=list[Statement])
    """Statements with a key that is not known: they count for nothing."""
    dropped: list[Statement] = field(default_factory=list[Statement])
    """Statements about records that were dropped since."""

    @property
    def proven(self) -> int:
        """The number up to which a proof covers the records; 0 for none."""
        return self.confirmed[-1].seq if self.confirmed else 0

    @property
    def is_whole(self) -> bool:
        """Nothing differs, and a proof covers all of it.

        What is behind the last proof could have been made up by whoever has the file.
        """
        covered = bool(self.confirmed) and self.proven >= self.last
        return self.difference is None and not self.wrong and covered


@dataclass
class _Sorted:
    good: list[Statement] = field(default_factory=list[Statement])
    wrong: list[str] = field(default_factory=list[str])
    unknown: list[Statement] = field(default_factory=list[Statement])


def audit(archive: Archive, trusted: Mapping[str, str] | None = None) -> Audit:
    """Check all of it, with the keys that are trusted, or else with the file's own.

    Raises `Unreadable` when the file ends too soon.
    """
    proofs = _sort(archive, archive.keys if trusted is None else trusted)
    examination = Examination(proofs.good)
    past = _read(_followed(archive, examination))
    found, difference = examination.found, examination.difference
    return Audit(
        session=archive.session,
        first=found.first,
        last=found.seq,
        tombstones=found.tombstones,
        holes=found.holes,
        difference=difference,
        ran=_ran(past) if difference and difference.last == difference.seq else None,
        confirmed=examination.confirmed,
        wrong=proofs.wrong,
        unknown=proofs.unknown,
        dropped=[] if difference else examination.open,
    )


def _sort(archive: Archive, keys: Mapping[str, str]) -> _Sorted:
    """The proofs by whether they can be believed."""
    found = _Sorted()
    for number, proof in enumerate(archive.proofs, 1):
        try:
            statement = _checked(proof, keys)
        except (NotAProof, WrongSignature) as error:
            found.wrong.append(f"proof {number}: {error}")
            continue
        if statement.session != archive.session:
            found.wrong.append(f"proof {number}: it is about session {statement.session}")
        elif statement.key not in keys:
            found.unknown.append(statement)
        else:
            found.good.append(statement)
    return found


def _checked(proof: Proof, keys: Mapping[str, str]) -> Statement:
    key = keys.get(proof.statement.key)
    return proof.statement if key is None else proof.check(key)


def _followed(archive: Archive, examination: Examination) -> Iterator[Record | Tombstone]:
    """The records up to the first difference, which the examination then has."""
    try:
        for head, body in archive.entries():
            examination.take(head, body)
            if examination.difference is not None:
                return
            if head.kind is not None:
                yield head.record(body or b"")
    except Damaged as error:
        examination.damaged(str(error))
    examination.finish()


def _read(records: Iterator[Record | Tombstone]) -> Past:
    """What the records say of executions; nothing if one is no message. Reads all of them."""
    try:
        return read_past(records)
    except Exception:  # a file that somebody made up may hold anything
        return Past()
    finally:
        for _ in records:
            pass


def _ran(past: Past) -> Ran | None:
    """The execution that ran where reading ended, or waited first."""
    open_ones = [execution for execution in past.executions if execution.ended is None]
    running = [execution for execution in open_ones if execution.started is not None]
    for execution in (*running, *open_ones):
        return Ran(_number(past, execution), _code(past, execution))
    return None


def _number(past: Past, wanted: Execution) -> int:
    return next(n for n, execution in enumerate(past.executions, 1) if execution is wanted)


def _code(past: Past, execution: Execution) -> str:
    request = past.open.get(execution.id)
    code = str(request.message.content_if_any().get("code", "")) if request is not None else ""
    first, is_cut = first_line(code, SHOWN_CODE)
    return first + (" …" if is_cut else "")
