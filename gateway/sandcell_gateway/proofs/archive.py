"""An exported history: one tar file with the journal as it is stored, proofs and keys.

    manifest.json    {"format", "version", "session", "name", "engine", "isolated", "exported_at"}
    proofs.json      [{"statement", "signature"}, …]
    keys.json        {key id: public key in hexadecimal digits, …}
    journal/000001   entries of the journal (`journal.records`), whole ones
    journal/000002   …

A tar file can be written while the journal is read, and looked at with what everybody
has; each part of the journal is one message of the shim.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sandcell_gateway.journal.records import Entry, parse_all
from sandcell_gateway.proofs.proof import Proof, key_id

FORMAT, VERSION = "sandcell history", 1
MANIFEST, PROOFS, KEYS = "manifest.json", "proofs.json", "keys.json"
JOURNAL = "journal/"
MAX_FACTS = 64 << 20
"""Most bytes of a member that is not the journal: some 100,000 proofs."""
END = bytes(2 * tarfile.BLOCKSIZE)
"""What ends a tar file."""


class Unreadable(Exception):
    """The file is no exported history, or not all of one; says what to do."""


def member(name: str, data: bytes, when: float) -> bytes:
    """A file of the archive, with its header; `when` is its Unix time."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), int(when), 0o600
    padding = bytes(-len(data) % tarfile.BLOCKSIZE)
    return b"".join((info.tobuf(tarfile.PAX_FORMAT), data, padding))


def part(number: int, data: bytes, when: float) -> bytes:
    """A part of the journal; numbers begin at 1."""
    return member(f"{JOURNAL}{number:06d}", data, when)


def facts(
    manifest: Mapping[str, Any], proofs: Sequence[Proof], keys: Mapping[str, str], when: float
) -> bytes:
    """What comes before the journal."""
    listed = [{"statement": proof.text, "signature": proof.signature} for proof in proofs]
    head = {"format": FORMAT, "version": VERSION, **manifest}
    return b"".join(
        member(name, json.dumps(value, indent=1).encode() + b"\n", when)
        for name, value in ((MANIFEST, head), (PROOFS, listed), (KEYS, dict(keys)))
    )


@dataclass(frozen=True)
class Archive:
    """An export that is open for reading."""

    manifest: dict[str, Any]
    proofs: list[Proof]
    keys: dict[str, str]
    """Id → public key, as the file has it: whoever made the file could put any key there."""
    _tar: tarfile.TarFile

    @property
    def session(self) -> str:
        """The session's id, as the file has it."""
        return str(self.manifest.get("session", ""))

    def entries(self) -> Iterator[Entry]:
        """The journal. Raises `Damaged` where bytes are no journal, or `Unreadable`."""
        try:
            for info in self._tar:
                if info.name.startswith(JOURNAL):
                    yield from parse_all(_content(self._tar, info))
        except tarfile.TarError as error:
            raise _cut_off(error) from error


@contextmanager
def open_archive(path: Path) -> Generator[Archive]:
    """Open an export. Raises `Unreadable`."""
    try:
        with tarfile.open(path, "r:") as tar:
            manifest, proofs, keys = (_json(tar, name) for name in (MANIFEST, PROOFS, KEYS))
            if not isinstance(manifest, dict):
                raise _not_ours()
            described = cast("dict[str, Any]", manifest)
            if described.get("format") != FORMAT:
                raise _not_ours()
            if described.get("version") != VERSION:
                raise Unreadable(
                    f"expected version {VERSION} of the format, got "
                    f"{described.get('version')!r}; get a newer sandcell"
                )
            yield Archive(described, _proofs(proofs), _keys(keys), tar)
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise _cut_off(error) from error


def _not_ours() -> Unreadable:
    return Unreadable("it is no exported history; make one with `sandcell export`")


def _cut_off(error: Exception) -> Unreadable:
    return Unreadable(f"it is no whole tar file ({error}); export it again")


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    # A sparse file of a few bytes may say that it has terabytes.
    file = tar.extractfile(info) if info.isreg() and not info.issparse() else None
    if file is None:
        raise Unreadable(f"its {info.name} is no plain file; export it again")
    return file.read()


def _json(tar: tarfile.TarFile, name: str) -> object:
    info = tar.next()
    if info is None or info.name != name or info.size > MAX_FACTS:
        raise _not_ours()
    try:
        found: object = json.loads(_content(tar, info))
    except ValueError as error:
        raise Unreadable(f"its {name} is no JSON; export it again") from error
    return found


def _keys(listed: object) -> dict[str, str]:
    """Each under its own id: a false id would be shown as the one who signed."""
    try:
        keys = cast("dict[str, str]", listed).values()
        return {key_id(key): key for key in keys}
    except (AttributeError, TypeError, ValueError) as error:
        raise Unreadable(f"its {KEYS} is no list of keys; export it again") from error


def _proofs(listed: object) -> list[Proof]:
    try:
        items = cast("list[dict[str, str]]", listed)
        return [Proof(str(item["statement"]), str(item["signature"])) for item in items]
    except (KeyError, TypeError) as error:
        raise Unreadable(f"its {PROOFS} is no list of proofs; export it again") from error
