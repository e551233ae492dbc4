"""Statements are signed as they are, and read strictly."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sandcell_gateway.proofs.proof import (
    CONTEXT,
    MAX_HOLES,
    NotAProof,
    Proof,
    Statement,
    WrongSignature,
    bounded,
    key_id,
    sign,
)
from tests.proofs.samples import KEY, OTHER_KEY, public, statement

STATEMENT = statement(7, bytes(range(32)), holes=((2, 3),))


def test_it_comes_back() -> None:
    proof = sign(STATEMENT, KEY)
    assert proof.statement == proof.check(public(KEY)) == STATEMENT
    assert json.loads(proof.text) == {
        "version": 1,
        "session": STATEMENT.session,
        "seq": 7,
        "chain": bytes(range(32)).hex(),
        "time": "2026-01-01T12:00:00Z",
        "key": key_id(public(KEY)),
        "attestable": True,
        "holes": [[2, 3]],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 8},
        {"session": "another"},
        {"chain": "00" * 32},
        {"time": "2027-01-01T12:00:00Z"},
        {"attestable": False},
        {"holes": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_word_of_it_is_signed(change: dict[str, object]) -> None:
    signature = sign(STATEMENT, KEY).signature
    changed = replace(STATEMENT, **change)  # type: ignore[arg-type]
    with pytest.raises(WrongSignature):
        Proof(changed.text, signature).check(public(KEY))


def test_another_key_is_not_believed() -> None:
    proof = sign(STATEMENT, KEY)
    for key in (public(OTHER_KEY), "", "zz", "00" * 31):
        with pytest.raises(WrongSignature):
            proof.check(key)


def test_a_signature_of_something_else_is_none() -> None:
    """The same key may sign other things one day."""
    bare = KEY.sign(STATEMENT.text.encode()).hex()
    with pytest.raises(WrongSignature):
        Proof(STATEMENT.text, bare).check(public(KEY))
    assert CONTEXT.endswith(b"\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        STATEMENT.text.replace('"version":1', '"version":2'),
        STATEMENT.text.replace('"seq":7,', ""),
        STATEMENT.text.replace('"seq":7', '"seq":"many"'),
        STATEMENT.text.replace('"seq":7', '"seq":7,"more":1'),
        STATEMENT.text.replace("[[2,3]]", "[2,3]"),
        STATEMENT.text.replace("2026-01-01T", "yesterday"),
    ],
)
def test_what_is_no_statement_is_refused(text: str) -> None:
    with pytest.raises(NotAProof):
        Statement.parse(text)


def test_many_holes_are_summed_up_at_the_end() -> None:
    """A proof then claims less, never more."""
    few = [(2 * n, 2 * n) for n in range(1, MAX_HOLES + 1)]
    assert bounded(few) == tuple(few)
    many = [*few, (500, 501), (600, 600)]
    assert len(bounded(many)) == MAX_HOLES
    assert bounded(many)[-1] == (2 * MAX_HOLES, 600)
    assert bounded(many)[:-1] == tuple(few[:-1])
