"""The history as a notebook that nbformat accepts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import nbformat

from sandcell_gateway.history.notebook import make_notebook
from sandcell_wire.models import ExecutionModel

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def execution(**fields: Any) -> ExecutionModel:
    known: dict[str, Any] = {
        "id": "a/b",
        "code": "1 + 1",
        "status": "ok",
        "execution_count": 1,
        "detached": False,
        "submitted_at": MOMENT,
        "started_at": MOMENT,
        "ended_at": MOMENT,
        "outputs": [],
    }
    return ExecutionModel(**known | fields)


def test_it_is_valid() -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": "x"},
        {
            "output_type": "display_data",
            "data": {"application/json": {"a": 1}, "text/plain": "x", "text/odd": {"b": 2}},
            "metadata": {},
        },
        {"output_type": "error", "ename": "E", "evalue": "", "traceback": []},
    ]
    notebook = make_notebook(
        [execution(outputs=outputs), execution(id="", code="", execution_count=None)],
        session="s",
        language="python",
    ).model_dump()
    nbformat.validate(notebook)
    assert [cell["source"] for cell in notebook["cells"]] == ["1 + 1", ""]
    assert notebook["cells"][0]["outputs"][1]["data"]["text/odd"] == '{"b": 2}'
    assert notebook["cells"][0]["metadata"]["sandcell"]["status"] == "ok"
