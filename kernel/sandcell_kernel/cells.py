"""Which lines of a cell are for the local kernel. Pure.

Only leading lines can be: what follows them runs in the sandbox, and a `%sandbox`
line below other code would have to run in the middle of it. A cell that begins with
`%%sandbox` is for the local kernel as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LINE_MAGIC = "%sandbox"
CELL_MAGIC = "%%sandbox"


class Line(NamedTuple):
    """One command."""

    text: str
    """What follows `%sandbox` or `%%sandbox`, stripped."""
    body: str | None = None
    """The lines below it, when the whole cell is the command's."""


@dataclass(frozen=True)
class LeadingLines:
    """The `%sandbox` lines at the top of a cell."""

    lines: tuple[Line, ...]
    alone: bool
    """Nothing else but blank lines and comments is in the cell."""


def leading_lines(code: str) -> LeadingLines | None:
    """The cell's leading `%sandbox` lines, or None when it has none."""
    first, _, body = code.lstrip("\n").partition("\n")
    if _begins(first, CELL_MAGIC):
        return LeadingLines((Line(first.strip()[len(CELL_MAGIC) :].strip(), body),), alone=True)
    found: list[Line] = []
    rest: list[str] = []
    for line in code.splitlines():
        bare = line.strip()
        if not rest and _begins(line, LINE_MAGIC):
            found.append(Line(bare[len(LINE_MAGIC) :].strip()))
        elif bare and not (bare.startswith("#") and not rest):
            rest.append(line)
    if not found:
        return None
    return LeadingLines(tuple(found), not any(not line.strip().startswith("#") for line in rest))


def _begins(line: str, magic: str) -> bool:
    word = line.split(maxsplit=1)[0] if line.strip() else ""
    return word == magic and not line[:1].isspace()
