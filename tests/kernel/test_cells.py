"""Which lines of a cell the local kernel runs itself."""

from __future__ import annotations

import pytest

from sandcell_kernel.cells import LeadingLines, leading_lines


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%sandbox status", LeadingLines(("status",), True)),
        ("\n# a comment\n%sandbox  status \n\n# another\n", LeadingLines(("status",), True)),
        ("%sandbox list\n%sandbox status\nx = 1", LeadingLines(("list", "status"), False)),
        ("%sandbox", LeadingLines(("",), True)),
        ("x = 1\n%sandbox status", None),
        ("%sandbox status\nx = 1\n%sandbox list", LeadingLines(("status",), False)),
        ("  %sandbox status", None),
        ("%sandboxed", None),
        ("%%sandbox", None),
        ("'%sandbox status'", None),
        ("", None),
    ],
)  # fmt: skip
def test_only_leading_lines_are_local(code: str, expected: LeadingLines | None) -> None:
    assert leading_lines(code) == expected
