"""Results as display data: HTML for notebooks, a plain twin for terminals and exports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from sandcell_magics.results import Card, Result, Shown, Table, Text

MimeBundle = dict[str, str]
Output = tuple[str, Mapping[str, Any]]
"""Type and content of a message on iopub."""


def messages(result: Result) -> Iterator[Output]:
    """What a front end is sent to show it."""
    if isinstance(result, Shown):
        for output in result.outputs:
            yield _again(output)
    else:
        yield "display_data", {"data": bundle(result), "metadata": {}, "transient": {}}


def _again(output: Mapping[str, Any]) -> Output:
    """An earlier cell's output, as one of this cell."""
    if output["output_type"] == "stream":
        return "stream", {"name": output["name"], "text": output["text"]}
    if output["output_type"] == "error":
        # As text: an `error` would make it the failure of a cell that did not fail.
        return "stream", {"name": "stderr", "text": "\n".join(output["traceback"]) + "\n"}
    data, metadata = output["data"], output["metadata"]
    return "display_data", {"data": data, "metadata": metadata, "transient": {}}


def bundle(result: Card | Table | Text) -> MimeBundle:
    """`text/plain` always; `text/html` where it says more."""
    if isinstance(result, Text):
        return {"text/plain": result.text}
    if isinstance(result, Card):
        return {"text/plain": _card_text(result), "text/html": _card_html(result)}
    return {"text/plain": _table_text(result), "text/html": _table_html(result)}


def _card_text(card: Card) -> str:
    width = max(len(name) for name, _ in card.facts)
    lines = [f"  {name:<{width}}  {value}" for name, value in card.facts]
    return "\n".join([card.title, *lines])


def _card_html(card: Card) -> str:
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in card.facts
    )
    return f"<table><caption><b>{escape(card.title)}</b></caption>{rows}</table>"


def _table_text(table: Table) -> str:
    if not table.rows:
        return table.note
    rows = [table.headings, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headings))]
    lines = [_text_row(row, widths) for row in rows]
    return "\n".join(lines + ([table.note] if table.note else []))


def _text_row(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
    return "  ".join(cells).rstrip()


def _table_html(table: Table) -> str:
    if not table.rows:
        return f"<p>{escape(table.note)}</p>"
    head = "".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in table.headings)
    body = "".join(
        "<tr>"
        + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
