"""The tree of errors is the one drawn in the docstring."""

from __future__ import annotations

import inspect
import re

import pytest

import sandcell
from sandcell import errors
from sandcell.errors import SandcellError, explain


def drawn() -> dict[str, str]:
    """Class → parent, as the docstring draws it."""
    assert errors.__doc__ is not None
    stack: list[tuple[int, str]] = []
    found: dict[str, str] = {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"^(\s*[│├└─ ]*)([A-Z]\w+(?:Error|[a-z])\b)", line)
        if match is None or ("─" not in line and line.strip() != "SandcellError"):
            continue
        depth, name = len(match[1]), match[2]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if stack:
            found[name] = stack[-1][1]
        stack.append((depth, name))
    return found


def test_the_tree_is_as_drawn() -> None:
    classes = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, SandcellError) and kind is not SandcellError
    }
    assert {name: kind.__bases__[0].__name__ for name, kind in classes.items()} == drawn()


def test_every_error_is_exported() -> None:
    assert set(drawn()) | {"SandcellError"} <= set(sandcell.__all__)


def test_facts_are_attributes() -> None:
    error = SandcellError("text", hint="hint", status=500, code="c", request_id="r")
    assert (str(error), error.hint, error.status, error.code, error.request_id) == (
        "text",
        "hint",
        500,
        "c",
        "r",
    )


@pytest.mark.parametrize(
    ("text", "hint", "said"),
    [
        ("it failed", None, "it failed."),
        ("it failed", "Does it run?", "it failed. Does it run?"),
        ("it failed", "Try again", "it failed. Try again."),
        ("it failed.", "list yours with `x`", "it failed; list yours with `x`."),
        ("it\n failed!", "`x` helps.", "it failed! `x` helps."),
    ],
)
def test_an_error_and_its_hint_are_sentences(text: str, hint: str | None, said: str) -> None:
    assert explain(SandcellError(text, hint=hint)) == said
