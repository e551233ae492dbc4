"""A notebook tool runs a notebook over a line that is cut every two seconds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.support.ledger import Cell
from tests.support.route import Route

pytestmark = pytest.mark.linux

CELL_SECONDS = 90

CELLS = [
    "import time\nvalues = []\nfor i in range(40): print(i, flush=True); time.sleep(0.05)",
    "values.append(1)\ntime.sleep(1)\nvalues",
    Cell(count=70, pause=0.03).code,
    "import sys\nfor i in range(20): print('error', i, file=sys.stderr); time.sleep(0.05)",
    "values.append(2)\nvalues",
    "display({'text/html': '<b>' + 'x' * 200_000 + '</b>', 'text/plain': 'x'}, raw=True)",
    "time.sleep(1.5)\nlen(values)",
]


def executed(own_route: Route) -> NotebookNode:
    """The notebook with its outputs, run by nbclient in a kernel of its own."""
    notebook: NotebookNode = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(code) for code in CELLS]
    )
    directory = own_route.home.path / "notebook"
    directory.mkdir(exist_ok=True)
    client = NotebookClient(
        notebook,
        kernel_name="sandcell",
        timeout=CELL_SECONDS,
        resources={"metadata": {"path": str(directory)}},
    )
    client.execute(env=own_route.environ)
    return notebook


def outputs(notebook: NotebookNode) -> list[list[dict[str, Any]]]:
    """What the notebook keeps."""
    return [joined(cell["outputs"]) for cell in notebook["cells"]]


def joined(parts: Sequence[NotebookNode]) -> list[dict[str, Any]]:
    """Into which pieces ipykernel splits a stream depends on its timer."""
    found: list[dict[str, Any]] = []
    for output in map(dict, parts):
        if (
            found
            and output["output_type"] == "stream"
            and output.get("name") == found[-1].get("name")
        ):
            found[-1]["text"] += output["text"]
        else:
            found.append(output)
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_cuts_every_two_seconds_change_no_output(own_route: Route) -> None:
    plain = executed(own_route)
    before = own_route.proxy.cuts
    with own_route.proxy.cutting(itertools.repeat(2.0)):
        cut = executed(own_route)
    assert own_route.proxy.cuts > before + 3
    assert outputs(cut) == outputs(plain)
    counts = [cell["execution_count"] for cell in cut["cells"]]
    assert counts == list(range(1, len(CELLS) + 1))
