"""An exported history that was changed anywhere is found out, and the first place is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandcell_gateway.journal.records import (
    GENESIS,
    HEAD_BYTES,
    Entry,
    Head,
    State,
    base,
    parse_all,
    seal,
    tombstone,
)
from sandcell_gateway.proofs.archive import Unreadable, open_archive
from sandcell_gateway.proofs.audit import audit
from sandcell_gateway.proofs.proof import Proof, key_id, sign
from tests.proofs.samples import (
    CELL,
    KEY,
    OTHER_KEY,
    SESSION,
    Export,
    example,
    public,
    statement,
)

calm = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Place = tuple[int, int, int]
"""First and last byte of an entry, and its number."""


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return example(tmp_path_factory.mktemp("journal"))


def places(export: Export) -> list[Place]:
    found: list[Place] = []
    at = 0
    for head, body in export.entries:
        end = at + HEAD_BYTES + len(head.owner.encode()) + len(body or b"")
        found.append((at, end, head.seq))
        at = end
    return found


def with_journal(export: Export, journal: bytes) -> Export:
    return replace(export, journal=journal)


def stored(entry: Entry, previous: bytes) -> bytes:
    """An entry as it is stored."""
    head, body = entry
    assert head.kind is not None
    assert body is not None
    data, chain = seal(head.seq, head.time, head.kind, head.owner.encode(), body, previous)
    assert chain == head.chain
    return data + body


def pieces(export: Export) -> dict[int, bytes]:
    """The stored records by their numbers; the base before the first is number 0."""
    return {seq: export.journal[begin:end] for begin, end, seq in places(export)}


def test_what_nobody_changed_is_whole(export: Export, tmp_path: Path) -> None:
    found = export.audit(tmp_path / "e.tar")
    assert found.is_whole
    assert (found.first, found.last, found.proven) == (1, 3 * CELL, 3 * CELL)
    assert [one.seq for one in found.confirmed] == [CELL, 3 * CELL]
    assert (found.session, found.difference) == (SESSION, None)
    assert (found.tombstones, found.holes) == (0, [])


@settings(calm, max_examples=150)
@given(data=st.data())
def test_any_flipped_bit_is_found_and_its_record_named(
    export: Export, tmp_path: Path, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, 8 * len(export.journal) - 1))
    changed = bytearray(export.journal)
    changed[bit // 8] ^= 1 << bit % 8
    found = with_journal(export, bytes(changed)).audit(tmp_path / "e.tar")
    (seq,) = (seq for begin, end, seq in places(export) if begin <= bit // 8 < end)
    assert not found.is_whole
    assert found.difference is not None
    assert (found.difference.seq, found.difference.last) == (max(seq, 1), max(seq, 1))


@settings(calm, max_examples=300)
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_the_file_never_passes_for_something_else(
    export: Export, tmp_path: Path, data: st.DataObject
) -> None:
    """It is unreadable, or differs, or lies where it means nothing, such as padding."""
    path = export.write(tmp_path / "e.tar")
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))
    try:
        with open_archive(path) as archive:
            found = audit(archive)
    except Unreadable:
        return
    if found.is_whole:
        good = export.audit(path)
        assert (found.first, found.last, found.holes) == (good.first, good.last, good.holes)
        assert {one.seq for one in found.confirmed} <= {CELL, 3 * CELL}


@settings(calm, max_examples=60)
@given(data=st.data())
def test_any_flipped_bit_of_a_proof_is_found(
    export: Export, tmp_path: Path, data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, 1))
    proof = export.proofs[number]
    place = data.draw(st.sampled_from(["text", "signature"]))
    changed = bytearray(getattr(proof, place).encode())
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= 1  # stays ASCII, and is no other spelling of the same digit
    broken = replace(proof, **{place: changed.decode()})
    proofs = [broken if one is proof else one for one in export.proofs]
    found = replace(export, proofs=proofs).audit(tmp_path / "e.tar")
    assert found.wrong or found.unknown, "a changed key id makes it nobody's proof"
    assert found.is_whole == (number == 0 and not found.wrong)
    assert [one.seq for one in found.confirmed] == [CELL if number else 3 * CELL]


def test_the_execution_that_a_record_belongs_to_is_named(export: Export, tmp_path: Path) -> None:
    parts = pieces(export)
    body = parts[CELL + 4].replace(b"cell 2 says one", b"cell 2 says ONE")
    assert body != parts[CELL + 4]
    journal = export.journal.replace(parts[CELL + 4], body)
    found = with_journal(export, journal).audit(tmp_path / "e.tar")
    assert found.difference is not None
    assert found.difference.seq == CELL + 4
    assert "body" in found.difference.reason
    assert found.ran is not None
    assert (found.ran.number, found.ran.code) == (2, "cell 2")
    assert [one.seq for one in found.confirmed] == [CELL], "what is before it is proven"


def test_a_journal_written_anew_does_not_fit_the_proof(export: Export, tmp_path: Path) -> None:
    """Each link fits; whoever did it had no key."""
    entries = export.entries
    parts, chain = list[bytes](), b""
    for head, body in entries:
        if head.state is State.BASE:
            parts.append(base(head.seq, head.chain))
            chain = head.chain
            continue
        assert head.kind is not None
        assert body is not None
        new = body.replace(b"cell 2 says one", b"cell 2 says ONE")
        data, chain = seal(head.seq, head.time, head.kind, head.owner.encode(), new, chain)
        parts += [data, new]
    found = with_journal(export, b"".join(parts)).audit(tmp_path / "e.tar")
    assert found.difference is not None
    assert (found.difference.seq, found.difference.last) == (CELL + 1, 3 * CELL)
    assert "2026-01-01" in found.difference.reason


def test_what_is_behind_the_last_proof_is_not_proven(tmp_path: Path) -> None:
    """Whoever has a file can go on with the chain, which needs no key."""
    found = example(tmp_path / "journal", cells=4).audit(tmp_path / "e.tar")
    assert (found.is_whole, found.difference, found.wrong) == (False, None, [])
    assert (found.proven, found.last) == (3 * CELL, 4 * CELL)


def test_a_proof_of_nothing_proves_nothing_else(export: Export, tmp_path: Path) -> None:
    nothing = sign(statement(0, GENESIS), KEY)
    assert not replace(export, proofs=[nothing]).audit(tmp_path / "e.tar").is_whole
    assert Export(b"", [nothing]).audit(tmp_path / "e.tar").is_whole


def test_an_end_that_was_cut_off_is_found(export: Export, tmp_path: Path) -> None:
    parts = pieces(export)
    cut = b"".join(data for seq, data in parts.items() if seq < 3 * CELL)
    found = with_journal(export, cut).audit(tmp_path / "e.tar")
    assert found.difference is not None
    assert found.difference.seq == 3 * CELL
    assert found.proven == CELL
    earlier = replace(
        export,
        journal=b"".join(data for seq, data in parts.items() if seq <= CELL),
        proofs=export.proofs[:1],
    )
    assert earlier.audit(tmp_path / "e.tar").is_whole, "it is what there was at that time"


def bases(export: Export) -> dict[int, Head]:
    return {head.seq: head for head, _ in export.entries}


def with_hole(export: Export, first: int, last: int) -> bytes:
    """These records are gone, and the chain is said to go on behind them."""
    parts, heads = pieces(export), bases(export)
    bridge = base(last, heads[last].chain)
    return b"".join(
        bridge if seq == first else data for seq, data in parts.items() if not first < seq <= last
    )


def test_records_that_were_there_must_not_be_missing(export: Export, tmp_path: Path) -> None:
    found = with_journal(export, with_hole(export, 10, 12)).audit(tmp_path / "e.tar")
    assert found.difference is not None
    assert (found.difference.seq, found.difference.last) == (10, 10)
    assert found.ran is not None
    assert found.ran.code == "cell 2"


@pytest.mark.parametrize(("holes", "missing"), [(((10, 12),), None), (((10, 11),), 12), ((), 10)])
def test_what_the_disk_had_refused_may_be_missing(
    export: Export, tmp_path: Path, holes: tuple[tuple[int, int], ...], missing: int | None
) -> None:
    heads = bases(export)
    proof = sign(statement(3 * CELL, heads[3 * CELL].chain, holes=holes), KEY)
    changed = replace(export, proofs=[proof], journal=with_hole(export, 10, 12))
    found = changed.audit(tmp_path / "e.tar")
    assert (found.difference and found.difference.seq) == missing
    assert found.holes == [(10, 12)]
    assert found.is_whole == (missing is None)


def test_dropped_content_and_beginnings_are_no_difference(export: Export, tmp_path: Path) -> None:
    heads = bases(export)
    parts = [base(CELL + 1, heads[CELL + 1].chain)]
    for head, body in export.entries:
        if head.seq > CELL + 1:
            assert body is not None
            whole = stored((head, body), heads[head.seq - 1].chain)
            data = whole[: len(whole) - len(body)]
            parts += [tombstone(data)] if head.seq % 3 == 0 else [data, body]
    found = with_journal(export, b"".join(parts)).audit(tmp_path / "e.tar")
    assert found.is_whole
    assert (found.first, found.proven) == (CELL + 2, 3 * CELL)
    assert found.tombstones > 0
    assert [one.seq for one in found.dropped] == [CELL]


def test_without_proofs_nothing_is_proven(export: Export, tmp_path: Path) -> None:
    found = replace(export, proofs=[]).audit(tmp_path / "e.tar")
    assert (found.is_whole, found.difference, found.wrong, found.proven) == (False, None, [], 0)


def test_only_the_keys_that_are_trusted_count(export: Export, tmp_path: Path) -> None:
    """Whoever makes a file can sign it, and put the key there."""
    other = public(OTHER_KEY)
    assert export.audit(tmp_path / "e.tar", {key_id(public(KEY)): public(KEY)}).is_whole
    found = export.audit(tmp_path / "e.tar", {key_id(other): other})
    assert not found.is_whole
    assert (len(found.unknown), found.confirmed) == (2, [])
    # The id of the trusted key does not help without the key.
    chain = bases(export)[3 * CELL].chain
    forged = sign(statement(3 * CELL, chain, key=key_id(other)), KEY)
    found = replace(export, proofs=[forged]).audit(tmp_path / "e.tar", {key_id(other): other})
    assert (found.is_whole, len(found.wrong)) == (False, 1)


def test_a_key_is_known_by_its_own_id_only(export: Export, tmp_path: Path) -> None:
    """Or the file could show somebody else's as the one who signed."""
    name = key_id(public(KEY))
    chain = bases(export)[3 * CELL].chain
    forged = sign(statement(3 * CELL, chain), OTHER_KEY)
    changed = replace(export, proofs=[forged], keys={name: public(OTHER_KEY)})
    assert not changed.audit(tmp_path / "e.tar").is_whole


def test_a_proof_of_another_session_does_not_count(export: Export, tmp_path: Path) -> None:
    found = replace(export, session="another").audit(tmp_path / "e.tar")
    assert (found.is_whole, len(found.wrong)) == (False, 2)
    assert SESSION in found.wrong[0]


def test_proofs_of_a_former_key_count(export: Export, tmp_path: Path) -> None:
    chain = bases(export)[3 * CELL].chain
    name = key_id(public(OTHER_KEY))
    newer = sign(statement(3 * CELL, chain, key=name), OTHER_KEY)
    keys = {**export.keys, name: public(OTHER_KEY)}
    changed = replace(export, proofs=[export.proofs[0], newer], keys=keys)
    found = changed.audit(tmp_path / "e.tar")
    assert (found.is_whole, found.proven, len(found.confirmed)) == (True, 3 * CELL, 2)


def test_a_journal_in_parts_is_read_as_one(export: Export, tmp_path: Path) -> None:
    path = export.write(tmp_path / "e.tar", list(pieces(export).values()))
    with open_archive(path) as archive:
        assert list(archive.entries()) == list(parse_all(export.journal))


@pytest.mark.parametrize("keep", [0, 100, 600, -5000])
def test_what_is_no_whole_file_cannot_be_read(export: Export, tmp_path: Path, keep: int) -> None:
    path = export.write(tmp_path / "e.tar")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Unreadable), open_archive(path) as archive:
        list(archive.entries())


def test_another_tar_file_cannot_be_read(tmp_path: Path) -> None:
    path = Export(b"", [Proof("{}", "")]).write(tmp_path / "e.tar")
    path.write_bytes(path.read_bytes().replace(b"sandcell history", b"sandcell picture"))
    with pytest.raises(Unreadable, match="sandcell export"), open_archive(path):
        pass
