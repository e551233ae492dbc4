"""The gateway's signing key, and the public keys of all that it ever had.

`signing.key` in the state directory is an Ed25519 key (PEM, PKCS 8), readable for the
gateway's user alone. `proof-keys` beside it has a file for each public key: its id, and
in it 64 hexadecimal digits. Whoever removes `signing.key` gets a new key at the next
start; proofs of the old one can still be checked.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sandcell_gateway.proofs.proof import Proof, Statement, key_id, sign
from sandcell_gateway.settings import SettingsError

KEY = "signing.key"
PUBLIC_KEYS = "proof-keys"


class SigningKeys:
    """The key that signs now, and the public ones of those before."""

    def __init__(self, private: Ed25519PrivateKey, public: dict[str, str]) -> None:
        own = _public(private)
        self._private = private
        self.id = key_id(own)
        """The id of the key that signs now."""
        self.public = {**public, self.id: own}
        """Id → public key in hexadecimal digits, of all keys."""

    @classmethod
    def open(cls, state_dir: Path) -> SigningKeys:
        """The keys of this directory; the first time a key is made.

        Raises `SettingsError` when the key can be read by others, or is none.
        """
        directory = state_dir / PUBLIC_KEYS
        directory.mkdir(mode=0o700, exist_ok=True)
        path = state_dir / KEY
        if not path.is_symlink() and not path.exists():
            _make(path)
        keys = cls(_read(path), _public_keys(directory))
        # Before anything is signed with it, so that what it signs can always be checked.
        if not (directory / keys.id).exists():
            _write_whole(directory / keys.id, keys.public[keys.id].encode() + b"\n")
        return keys

    def sign(self, statement: Statement) -> Proof:
        """The proof of a statement that names the present key."""
        return sign(statement, self._private)


def look(path: Path) -> str:
    """The id of the key in this file; changes nothing. Raises `SettingsError`."""
    return key_id(_public(_read(path)))


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def _make(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    _write_whole(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _write_whole(path: Path, data: bytes) -> None:
    """A new file, mode 0600, that is there with all its content or not at all."""
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)  # fails where there is one, which a rename would not
    finally:
        aside.unlink()
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> Ed25519PrivateKey:
    _check_file(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key


def _check_file(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SettingsError(
            f"{path} must be a file of ours with mode 0600, because whoever has it can sign as "
            f"this gateway; if nobody has read it run `chmod 600 {path}`, otherwise remove it to "
            "have another key made"
        )


def _no_key(path: Path) -> SettingsError:
    return SettingsError(
        f"{path} holds no Ed25519 key (PEM, PKCS 8); restore it, or remove it to have another made"
    )


def _public_keys(directory: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(directory.iterdir()):
        text = path.read_text(errors="replace").strip()
        try:
            if key_id(text) == path.name:
                found[path.name] = text
        except ValueError:
            continue  # somebody's own file
    return found
