"""`sandcell verify`: what it says, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandcell.cli import app
from sandcell_gateway.proofs.proof import key_id, sign
from tests.proofs.samples import CELL, KEY, OTHER_KEY, SESSION, Export, example, public, statement


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return example(tmp_path_factory.mktemp("journal"))


@dataclass
class Said:
    code: int
    text: str


def verify(*words: object) -> Said:
    done = CliRunner().invoke(app, ["verify", *map(str, words)])
    return Said(done.exit_code, " ".join(done.output.split()))


def test_a_whole_file(export: Export, tmp_path: Path) -> None:
    said = verify(export.write(tmp_path / "e.tar"))
    assert said.code == 0
    assert said.text.startswith(f"WHOLE: session {SESSION}")
    assert (
        f"proven: records 1 to {3 * CELL}, signed at 2026-01-01T12:00:00Z (2 proofs)" in said.text
    )
    assert "not proven" not in said.text
    assert "in the file itself" in said.text
    assert "--key" in said.text
    assert "isolates nothing" not in said.text


def test_what_is_behind_the_last_proof_is_named(tmp_path: Path) -> None:
    said = verify(example(tmp_path / "journal", cells=4).write(tmp_path / "e.tar"))
    assert said.code == 1
    assert said.text.startswith("NOT ALL PROVEN")
    assert f"proven: records 1 to {3 * CELL}, signed" in said.text
    assert f"not proven: records {3 * CELL + 1} to {4 * CELL}, after the last proof" in said.text


def test_a_changed_file_names_record_and_execution(export: Export, tmp_path: Path) -> None:
    journal = export.journal.replace(b"cell 2 says one", b"cell 2 says ONE")
    said = verify(replace(export, journal=journal).write(tmp_path / "e.tar"))
    assert said.code == 1
    assert said.text.startswith("DIFFERS")
    assert f"record {CELL + 4}: its body is not the one that was recorded" in said.text
    assert "(during execution 2: 'cell 2')" in said.text
    assert f"proven: records 1 to {CELL}," in said.text


@pytest.mark.parametrize("form", ["word", "file", "answer"])
def test_the_gateways_key_can_be_given(export: Export, tmp_path: Path, form: str) -> None:
    path = export.write(tmp_path / "e.tar")
    key, other = public(KEY), public(OTHER_KEY)
    answer = {"keys": [{"id": key_id(k), "public_key": k, "signs": True} for k in (key, other)]}
    file = tmp_path / "key"
    file.write_text(json.dumps(answer) if form == "answer" else f"{key}\n")
    said = verify(path, "--key", key if form == "word" else file)
    assert said.code == 0
    assert f"signed with the key {key_id(key)}, which you gave" in said.text


def test_another_key_proves_nothing(export: Export, tmp_path: Path) -> None:
    said = verify(export.write(tmp_path / "e.tar"), "--key", public(OTHER_KEY))
    assert said.code == 1
    assert said.text.startswith("NOT PROVEN")
    assert f"left out: proofs of the key {key_id(public(KEY))}, which is not known" in said.text


def test_an_engine_that_isolates_nothing_is_named(export: Export, tmp_path: Path) -> None:
    (head,) = (h for h, _ in export.entries if h.seq == 3 * CELL)
    proof = sign(statement(3 * CELL, head.chain, attestable=False), KEY)
    said = verify(replace(export, proofs=[proof]).write(tmp_path / "e.tar"))
    assert said.code == 0
    assert "isolates nothing" in said.text
    assert "not proven" not in said.text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["missing.tar"], "No such file"),
        (["noise.tar"], "no whole tar file"),
        (["e.tar", "--key", "nowhere"], "64 hexadecimal digits"),
        (["e.tar", "--key", "noise.tar"], "64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_read(
    export: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    export.write(tmp_path / "e.tar")
    (tmp_path / "noise.tar").write_bytes(bytes(range(256)) * 40)
    said = verify(*words)
    assert (said.code, text in said.text) == (2, True), said.text


def test_text_of_others_does_not_reach_the_terminal(export: Export, tmp_path: Path) -> None:
    path = replace(export, session="a\x07bell").write(tmp_path / "e.tar")
    assert "session a\\x07bell" in verify(path).text
