"""Files and functions stay small enough to read; the failure names the ones to split."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, modules

FILE_LINES = 500
"""No file of the product is longer; past 300 ask which noun is hiding in it."""
TEST_FILE_LINES = 700
FUNCTION_LINES = 70
"""No function is longer, its docstring included."""
TYPICAL_FUNCTION_LINES = 40
TYPICAL_SHARE = 0.95
"""So many of all functions are at most that long."""


def _functions() -> list[tuple[str, int]]:
    """Place and length of every function."""
    return [
        (f"{module.place}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def _report(rows: list[tuple[str, int]]) -> str:
    return "\n".join(f"{lines:5} {place}" for place, lines in sorted(rows, key=lambda r: -r[1]))


@pytest.mark.parametrize(
    ("paths", "bound"),
    [
        ([module.path for module in modules().values()], FILE_LINES),
        (sorted((ROOT / "tests").rglob("*.py")), TEST_FILE_LINES),
    ],
    ids=["product", "tests"],
)
def test_files_are_not_too_long(paths: list[Path], bound: int) -> None:
    long = [(str(path.relative_to(ROOT)), _lines(path)) for path in paths if _lines(path) > bound]
    assert not long, f"longer than {bound} lines:\n{_report(long)}"


def test_functions_are_not_too_long() -> None:
    long = [(place, lines) for place, lines in _functions() if lines > FUNCTION_LINES]
    assert not long, f"longer than {FUNCTION_LINES} lines:\n{_report(long)}"


def test_functions_are_typically_short() -> None:
    functions = _functions()
    long = [(place, lines) for place, lines in functions if lines > TYPICAL_FUNCTION_LINES]
    share = 1 - len(long) / len(functions)
    said = f"only {share:.0%} of functions have at most {TYPICAL_FUNCTION_LINES} lines:"
    assert share >= TYPICAL_SHARE, f"{said}\n{_report(long)}"
