"""A session's history as a notebook (nbformat 4.5)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sandcell_wire.models import ExecutionModel, Notebook

NBFORMAT = (4, 5)
_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")


def make_notebook(executions: Iterable[ExecutionModel], *, session: str, language: str) -> Notebook:
    """Each execution a code cell, oldest first."""
    kernelspec = {"name": "sandcell", "display_name": "Sandbox (Python)", "language": language}
    return Notebook(
        nbformat=NBFORMAT[0],
        nbformat_minor=NBFORMAT[1],
        metadata={
            "kernelspec": kernelspec,
            "language_info": {"name": language},
            "sandcell": {"session": session},
        },
        cells=[_cell(execution) for execution in executions],
    )


def _cell(execution: ExecutionModel) -> dict[str, Any]:
    facts = execution.model_dump(
        mode="json", include={"id", "status", "submitted_at", "started_at", "ended_at"}
    )
    return {
        "cell_type": "code",
        "id": _NO_ID.sub("-", execution.id)[:64] or "cell",
        "metadata": {"sandcell": facts},
        "execution_count": execution.execution_count,
        "source": execution.code,
        "outputs": [_for_disk(output) for output in execution.outputs or ()],
    }


def _for_disk(output: Mapping[str, Any]) -> dict[str, Any]:
    """Text of MIME types other than JSON must be text: some libraries send numbers or lists."""
    if "data" not in output:
        return dict(output)
    data: dict[str, Any] = {}
    for kind, value in output["data"].items():
        is_json = kind == "application/json" or kind.endswith("+json")
        data[kind] = value if is_json or isinstance(value, str) else json.dumps(value)
    return {**output, "data": data}
