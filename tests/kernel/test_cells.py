"""Which lines of a cell the local kernel runs itself."""

from __future__ import annotations

import pytest

from sandcell_kernel.cells import LeadingLines, Line, leading_lines


def lines(*texts: str, alone: bool = True) -> LeadingLines:
    return LeadingLines(tuple(Line(text) for text in texts), alone)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%sandbox status", lines("status")),
        ("\n# a comment\n%sandbox  status \n\n# another\n", lines("status")),
        ("%sandbox list\n%sandbox status\nx = 1", lines("list", "status", alone=False)),
        ("%sandbox", lines("")),
        ("x = 1\n%sandbox status", None),
        ("%sandbox status\nx = 1\n%sandbox list", lines("status", alone=False)),
        ("  %sandbox status", None),
        ("%sandboxed", None),
        ("%%sandbox", LeadingLines((Line("", ""),), True)),
        ("\n%%sandbox --detach\n%sandbox status\nx = 1\n",
         LeadingLines((Line("--detach", "%sandbox status\nx = 1\n"),), True)),
        ("x = 1\n%%sandbox --detach", None),
        ("%%sandboxed", None),
        ("'%sandbox status'", None),
        ("", None),
    ],
)  # fmt: skip
def test_only_leading_lines_are_local(code: str, expected: LeadingLines | None) -> None:
    assert leading_lines(code) == expected
