"""The signing key is made once, is nobody else's, and leaves its public half behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sandcell_gateway.proofs import keys
from sandcell_gateway.proofs.keys import KEY, PUBLIC_KEYS, SigningKeys
from sandcell_gateway.settings import SettingsError
from tests.proofs.samples import statement


def test_it_is_made_once(tmp_path: Path) -> None:
    first = SigningKeys.open(tmp_path)
    again = SigningKeys.open(tmp_path)
    assert (first.id, first.public) == (again.id, again.public)
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [PUBLIC_KEYS, KEY]
    proof = first.sign(statement(3, b"c" * 32))
    assert proof.check(again.public[again.id]).seq == 3
    assert keys.look(tmp_path / KEY) == first.id


def test_a_new_one_leaves_the_old_public_key(tmp_path: Path) -> None:
    first = SigningKeys.open(tmp_path)
    (tmp_path / KEY).unlink()
    second = SigningKeys.open(tmp_path)
    assert set(second.public) == {first.id, second.id}
    assert len(second.public) == 2
    assert first.sign(statement(3, b"c" * 32)).check(second.public[first.id]).seq == 3


def test_a_public_key_whose_gateway_was_killed_is_written_later(tmp_path: Path) -> None:
    first = SigningKeys.open(tmp_path)
    (tmp_path / PUBLIC_KEYS / first.id).unlink()
    SigningKeys.open(tmp_path)
    assert (tmp_path / PUBLIC_KEYS / first.id).read_text().strip() == first.public[first.id]


def test_other_files_beside_the_public_keys_do_no_harm(tmp_path: Path) -> None:
    first = SigningKeys.open(tmp_path)
    (tmp_path / PUBLIC_KEYS / "notes").write_text("mine")
    (tmp_path / PUBLIC_KEYS / ("0" * 32)).write_text(first.public[first.id])
    assert set(SigningKeys.open(tmp_path).public) == {first.id}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    SigningKeys.open(tmp_path)
    (tmp_path / KEY).chmod(mode)
    with pytest.raises(SettingsError, match=r"0600.*chmod 600.*remove it"):
        SigningKeys.open(tmp_path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    SigningKeys.open(tmp_path)
    (tmp_path / KEY).rename(tmp_path / "elsewhere")
    (tmp_path / KEY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="must be a file of ours"):
        SigningKeys.open(tmp_path)


def _other_key() -> bytes:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("content", [b"", b"nonsense", _other_key()], ids=["empty", "text", "ec"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    with os.fdopen(os.open(tmp_path / KEY, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(content)
    with pytest.raises(SettingsError, match="no Ed25519 key"):
        SigningKeys.open(tmp_path)
