"""Which lines of a cell are for the local kernel.

Only leading lines can be: what follows them runs in the sandbox, and a `%sandbox`
line below other code would have to run in the middle of it.
"""

from __future__ import annotations

from dataclasses import dataclass

LINE_MAGIC = "%sandbox"


@dataclass(frozen=True)
class LeadingLines:
    """The `%sandbox` lines at the top of a cell."""

    lines: tuple[str, ...]
    """What follows `%sandbox` on each, stripped."""
    alone: bool
    """Nothing else but blank lines and comments is in the cell."""


def leading_lines(code: str) -> LeadingLines | None:
    """The cell's leading `%sandbox` lines, or None when it has none."""
    found: list[str] = []
    rest: list[str] = []
    for line in code.splitlines():
        bare = line.strip()
        if not rest and _is_magic(line):
            found.append(bare[len(LINE_MAGIC) :].strip())
        elif bare and not (bare.startswith("#") and not rest):
            rest.append(line)
    if not found:
        return None
    return LeadingLines(tuple(found), not any(not line.strip().startswith("#") for line in rest))


def _is_magic(line: str) -> bool:
    word = line.split(maxsplit=1)[0] if line.strip() else ""
    return word == LINE_MAGIC and not line[:1].isspace()
