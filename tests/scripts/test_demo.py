"""`make demo` shows the notebook, and fails when the notebook does not do what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from rich.console import Console

from scripts import demo
from tests.docs.documents import ROOT
from tests.support.home import Home

PLOT = nbformat.v4.new_output("display_data", {"image/png": "aGVsbG8="})
TABLE = nbformat.v4.new_output("execute_result", {"text/html": "<table></table>"})
ERROR = nbformat.v4.new_output("error", ename="TypeError", evalue="no", traceback=["T: no"])


def _cell(name: str, *outputs: Any, announced: bool = False) -> NotebookNode:
    metadata = {"tags": ["raises-exception"]} if announced else {}
    return nbformat.v4.new_code_cell("", id=name, outputs=list(outputs), metadata=metadata)


def _notebook(*cells: NotebookNode) -> NotebookNode:
    return nbformat.v4.new_notebook(cells=list(cells))


def test_a_good_notebook_passes() -> None:
    demo.check(_notebook(_cell("a", PLOT), _cell("b", TABLE), _cell("c", ERROR, announced=True)))


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([_cell("a", TABLE)], "no cell shows a plot"),
        ([_cell("a", PLOT)], "no cell shows a table"),
        ([_cell("a", PLOT, TABLE), _cell("b", ERROR)], "cell 'b' raised TypeError: no"),
        ([_cell("a", PLOT, TABLE), _cell("b", announced=True)], "cell 'b' should show an error"),
    ],
)
def test_a_broken_promise_is_named(cells: list[NotebookNode], reason: str) -> None:
    with pytest.raises(demo.DemoFailed, match=reason):
        demo.check(_notebook(*cells))


def test_the_rows_of_the_table_add_up() -> None:
    """Whatever was attributed to stages, nothing is counted twice or left out."""
    progress = demo.Progress(Console(), _notebook(), first=10.5)
    progress.timings = [
        demo.Timing("a", 2.0, {"create": 1.0, "execute": 0.5}),
        demo.Timing("b", 1.0, {"execute": 0.9}),
    ]
    table = demo.times(progress, started=10.0, ended=15.0)
    stages = list(table.columns[0].cells)
    milliseconds = [int(str(cell).replace(",", "")) for cell in table.columns[1].cells]
    assert dict(zip(stages, milliseconds, strict=True)) == {
        "start the local kernel": 500,
        "create": 1000,
        "execute": 1400,
        "cells that the local kernel answers": 600,
        "stop, write the results": 1500,
        "total": 5000,
    }


def test_the_stages_of_a_cell_add_up() -> None:
    told = {"stamps": {"received": 101.0}, "stages": {"queue": 0.5, "execute": 2.0}}
    first = demo.attributed(told, started=100.0, wall=4.0, first=True)
    assert first == {"create": 1.5, "execute": 2.0, "transfer": 0.5}
    later = demo.attributed(told, started=100.0, wall=4.0, first=False)
    assert later == {"queue": 0.5, "execute": 2.0, "transfer": 1.5}
    assert demo.attributed({}, started=100.0, wall=4.0, first=False) == {}


@pytest.mark.slow
def test_the_demo_runs(home: Home) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py"],
        env=home.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Engine: " in done.stdout
    executed = json.loads((ROOT / "build" / "quickstart.ipynb").read_text())
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    page = (ROOT / "build" / "quickstart.html").read_text()
    assert "data:image/png;base64" in page
    assert "<table" in page
