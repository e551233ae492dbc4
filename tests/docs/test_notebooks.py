"""Notebooks are kept without output, and ready for their kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.docs.documents import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request: pytest.FixtureRequest) -> dict[str, Any]:
    path: Path = request.param
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_it_is_valid(notebook: dict[str, Any]) -> None:
    nbformat.validate(notebook)


def test_it_holds_no_output(notebook: dict[str, Any]) -> None:
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert not [cell["id"] for cell in cells if cell["outputs"] or cell["execution_count"]]


def test_it_names_the_sandbox_kernel(notebook: dict[str, Any]) -> None:
    assert notebook["metadata"]["kernelspec"]["name"] == "sandcell"


def test_its_cells_have_speaking_names(notebook: dict[str, Any]) -> None:
    """`make demo` shows them."""
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(names) == len(set(names))
    assert all(name.replace("-", "").isalpha() for name in names)
