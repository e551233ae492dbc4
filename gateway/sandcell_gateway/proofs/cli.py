"""The command `sandcell verify`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from sandcell_gateway.proofs.archive import Unreadable, open_archive
from sandcell_gateway.proofs.audit import Audit, audit
from sandcell_gateway.proofs.proof import key_id
from sandcell_wire.words import plain

WHOLE, DIFFERS, UNREADABLE = 0, 1, 2
"""Exit codes."""
_PUBLIC_KEY = re.compile(r"\b[0-9a-fA-F]{64}\b")


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `sandcell export` wrote.")],
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="Public key of the gateway (64 hexadecimal digits), or a file with one or "
            "more of them, such as the answer of /v1/proof-keys. May be repeated."
        ),
    ] = None,
) -> None:
    """Check an exported history offline. Exit code 0: whole, 1: it differs, 2: unreadable."""
    try:
        trusted = _keys(key) if key else None
        with open_archive(file) as archive:
            found = audit(archive, trusted)
    except Unreadable as error:
        sys.stderr.write(f"error: {plain(str(file))}: {plain(str(error))}\n")
        raise typer.Exit(UNREADABLE) from error
    for line in report(found, trusted=trusted is not None):
        typer.echo(plain(line))
    if not found.is_whole:
        raise typer.Exit(DIFFERS)


def _keys(words: list[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for word in words:
        text = word if _PUBLIC_KEY.fullmatch(word) else _read(Path(word))
        keys = [match.lower() for match in _PUBLIC_KEY.findall(text)]
        if not keys:
            raise Unreadable(f"--key {word}: expected a public key of 64 hexadecimal digits in it")
        found |= {key_id(key): key for key in keys}
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise Unreadable(
            f"--key {path}: expected 64 hexadecimal digits, or a file with them: {error.strerror}"
        ) from error


def report(found: Audit, *, trusted: bool) -> Iterator[str]:
    """What was found, for people: the verdict first. `trusted`: the keys are not the file's."""
    yield f"{_verdict(found)}: session {found.session}"
    if found.difference is not None:
        yield f"  differs: {found.difference}{_where(found)}"
    yield from (f"  wrong: {text}" for text in found.wrong)
    yield from _proven(found)
    yield from _not_proven(found)
    yield from _signers(found, trusted=trusted)


def _verdict(found: Audit) -> str:
    if found.is_whole:
        return "WHOLE"
    if found.difference is not None or found.wrong:
        return "DIFFERS"
    return "NOT ALL PROVEN" if found.proven else "NOT PROVEN"


def _where(found: Audit) -> str:
    if found.ran is None:
        return ""
    return f" (during execution {found.ran.number}: {found.ran.code!r})"


def _proven(found: Audit) -> Iterator[str]:
    if not found.confirmed:
        yield "  proven: nothing, no proof of a known key covers a record that is here"
        return
    last = found.confirmed[-1]
    count = len(found.confirmed)
    yield (
        f"  proven: {_rows(found.first, last.seq)}, signed at {last.time}"
        f" ({count} proof{'' if count == 1 else 's'})"
    )
    if not last.attestable:
        yield (
            "  but the session's engine isolates nothing from the gateway's host: its code could "
            "have written what was signed"
        )


def _not_proven(found: Audit) -> Iterator[str]:
    if found.last > found.proven and found.confirmed:
        yield (
            f"  not proven: {_rows(found.proven + 1, found.last)}, after the last proof: whoever "
            "had the file could have made them up"
        )
    if found.first > 1:
        yield f"  not here: {_rows(1, found.first - 1)}, dropped from a journal that was full"
    if found.tombstones:
        yield (
            f"  not here: the content of {found.tombstones} records, dropped from a journal that "
            "was full; number, time and digest are here"
        )
    for first, last in found.holes:
        yield f"  not here: {_rows(first, last)}, which could not be stored"
    if found.dropped:
        yield f"  not compared: {len(found.dropped)} proofs of records that are not here any more"


def _signers(found: Audit, *, trusted: bool) -> Iterator[str]:
    for name in sorted({statement.key for statement in found.confirmed}):
        if trusted:
            yield f"  signed with the key {name}, which you gave"
        else:
            yield (
                f"  signed with the key {name}, which is the one in the file itself: whoever "
                "made the file could have put it there; give the gateway's with --key"
            )
    for name in sorted({statement.key for statement in found.unknown}):
        yield f"  left out: proofs of the key {name}, which is not known"


def _rows(first: int, last: int) -> str:
    if last < first:
        return "no records"
    return f"record {first}" if first == last else f"records {first} to {last}"
