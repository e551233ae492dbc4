"""Messages on iopub as the outputs that a notebook would hold (nbformat 4.5, "Code cells")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sandcell_wire.execution import traceback_of
from sandcell_wire.showing import (
    TOO_DEEP,
    TOO_MUCH,
    Budget,
    Output,
    bundle_of,
    size_of,
    text_of,
)

_WITH_DATA = ("display_data", "execute_result")


@dataclass
class _Place:
    """Where something with a display id is shown."""

    output: Output
    counted: int = 0
    """What an update that is shown here takes of the budget."""


class Displays:
    """Outputs with a display id, of all executions: later ones may change earlier ones."""

    def __init__(self, budget: Budget | None = None) -> None:
        self._budget = budget or Budget()
        # Only updates count: what comes as an output of its own, the journal bounds.
        self._shown: dict[str, list[_Place]] = {}

    def shown(self, display_id: str, output: Output) -> None:
        """Note an output with a display id."""
        self._shown.setdefault(display_id, []).append(_Place(output))

    def update(self, display_id: str, data: Output, metadata: Output) -> None:
        """Show this instead wherever the id is shown."""
        size = size_of(data) + size_of(metadata)
        for place in self._shown.get(display_id, ()):
            self._budget.give_back(place.counted)
            place.counted = size if self._budget.take(size) else 0
            place.output["data"] = data if place.counted else {"text/plain": TOO_MUCH}
            place.output["metadata"] = metadata if place.counted else {}

    def cleared(self, display_ids: Iterable[str], outputs: Iterable[Output]) -> None:
        """These outputs, which have these ids, are shown no longer."""
        gone = {id(output) for output in outputs}
        for display_id in display_ids:
            places = self._shown.get(display_id, [])
            for place in places:
                if id(place.output) in gone:
                    self._budget.give_back(place.counted)
            self._shown[display_id] = [one for one in places if id(one.output) not in gone]


class Outputs:
    """The outputs of one execution, in the order in which they are shown."""

    def __init__(self, displays: Displays) -> None:
        self._shown: list[Output] = []
        self._text: list[str] = []
        """The last output's text in pieces, if it is a stream's."""
        self._displays = displays
        self._display_ids: set[str] = set()
        """Of what is shown now."""
        self._clear_next = False

    @property
    def shown(self) -> list[Output]:
        """What is shown now."""
        if len(self._text) > 1:
            self._text = ["".join(self._text)]
            self._shown[-1]["text"] = self._text[0]
        return self._shown

    def add(self, msg_type: str, content: Mapping[str, Any]) -> None:
        """Take one message; those that show nothing are ignored."""
        if msg_type == "clear_output":
            self._clear_next = content.get("wait") is True
            if not self._clear_next:
                self._clear()
        elif msg_type == "update_display_data":
            self._displays.update(_display_id(content), *_bundle(content))
        elif msg_type == "stream":
            self._stream(text_of(content.get("name", "stdout")), text_of(content.get("text", "")))
        elif msg_type in _WITH_DATA:
            self._data(msg_type, content)
        elif msg_type == "error":
            self._show(
                {
                    "output_type": "error",
                    "ename": text_of(content.get("ename", "")),
                    "evalue": text_of(content.get("evalue", "")),
                    "traceback": [text_of(line) for line in traceback_of(content)],
                }
            )

    def _show(self, output: Output) -> None:
        if self._clear_next:
            self._clear_next = False
            self._clear()
        self.shown.append(output)
        self._text = []

    def _clear(self) -> None:
        self._displays.cleared(self._display_ids, self._shown)
        self._display_ids.clear()
        self._shown.clear()
        self._text = []

    def _stream(self, name: str, text: str) -> None:
        if not self._text or self._clear_next or self._shown[-1]["name"] != name:
            self._show({"output_type": "stream", "name": name, "text": text})
        self._text.append(text)

    def _data(self, msg_type: str, content: Mapping[str, Any]) -> None:
        data, metadata = _bundle(content)
        output: Output = {"output_type": msg_type, "data": data, "metadata": metadata}
        if msg_type == "execute_result":
            count = content.get("execution_count")
            output["execution_count"] = count if isinstance(count, int) else None
        self._show(output)
        if display_id := _display_id(content):
            self._display_ids.add(display_id)
            self._displays.shown(display_id, output)


def _display_id(content: Mapping[str, Any]) -> str:
    transient = content.get("transient")
    found = cast("dict[str, object]", transient) if isinstance(transient, dict) else {}
    return str(found.get("display_id") or "")


def _bundle(content: Mapping[str, Any]) -> tuple[Output, Output]:
    return bundle_of(content.get("data"), TOO_DEEP), bundle_of(content.get("metadata"), {})
