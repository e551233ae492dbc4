"""Messages become the outputs that JupyterLab would store."""

from __future__ import annotations

import json
from typing import Any

from sandcell_gateway.history.reading import Reader
from sandcell_wire.outputs import Displays, Outputs
from sandcell_wire.showing import MAX_DEPTH, TOO_DEEP, TOO_MUCH, Budget


def shown(*messages: tuple[str, dict[str, Any]], displays: Displays | None = None) -> list[Any]:
    outputs = Outputs(displays or Displays())
    for msg_type, content in messages:
        outputs.add(msg_type, content)
    return outputs.shown


def stream(text: str, name: str = "stdout") -> tuple[str, dict[str, Any]]:
    return "stream", {"name": name, "text": text}


def display(text: str, id: str = "", kind: str = "display_data") -> tuple[str, dict[str, Any]]:
    transient = {"display_id": id} if id else {}
    return kind, {"data": {"text/plain": text}, "metadata": {}, "transient": transient}


def texts(found: list[Any]) -> list[str]:
    return [output.get("text") or output["data"]["text/plain"] for output in found]


def test_text_of_one_stream_is_joined_and_of_two_is_not() -> None:
    found = shown(stream("a"), stream("b"), stream("c", "stderr"), stream("d"))
    assert [(output["name"], output["text"]) for output in found] == [
        ("stdout", "ab"),
        ("stderr", "c"),
        ("stdout", "d"),
    ]


def test_a_result_has_its_count_and_an_error_its_traceback() -> None:
    result = {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3}
    error = {"ename": "E", "evalue": "v", "traceback": ["one", "two"]}
    assert shown(("execute_result", result), ("error", error)) == [
        {"output_type": "execute_result", **result},
        {"output_type": "error", **error},
    ]


def test_clear_output_clears_now_or_with_the_next_output() -> None:
    assert texts(shown(stream("a"), ("clear_output", {"wait": False}), stream("b"))) == ["b"]
    assert texts(shown(stream("a"), ("clear_output", {"wait": True}))) == ["a"]
    assert texts(shown(stream("a"), ("clear_output", {"wait": True}), stream("b"))) == ["b"]


def test_an_update_changes_every_output_with_its_id_also_of_earlier_executions() -> None:
    displays = Displays()
    first = shown(display("old", "x"), display("other", "y"), displays=displays)
    second = shown(
        display("older", "x"), display("new", "x", "update_display_data"), displays=displays
    )
    assert texts(first) == ["new", "other"]
    assert texts(second) == ["new"]


def test_what_shows_nothing_is_ignored() -> None:
    assert shown(("status", {}), ("execute_input", {"code": ""}), ("comm_msg", {})) == []


def test_garbage_is_survived() -> None:
    found = shown(
        ("stream", {}),
        ("display_data", {"data": 3, "metadata": [], "transient": "x"}),
        ("error", {}),
        ("error", {"traceback": 5}),
        ("update_display_data", {}),
        ("stream", {"text": 7, "name": None}),
    )
    assert [output["output_type"] for output in found] == [
        "stream",
        "display_data",
        "error",
        "error",
        "stream",
    ]


def test_lone_surrogates_are_replaced_wherever_they_are() -> None:
    found = shown(
        stream("a\ud800"),
        ("error", {"ename": "\ud800", "evalue": "\udfff", "traceback": ["\ud800"]}),
        ("display_data", {"data": {"application/json": {"\ud800": ["\ud800"]}}}),
    )
    json.dumps(found, ensure_ascii=False).encode()
    assert found[0]["text"] == "a\ufffd"
    entry = {"id": "x", "first": 1, "last": 2, "status": "ok", "count": 1, "detached": False,
             "submitted": 0, "started": 0, "ended": 0, "code": "'\ud800'"}  # fmt: skip
    (execution,) = Reader([entry]).executions()
    assert execution.code == "'\ufffd'"


def test_data_that_is_nested_too_deep_is_not_shown_and_says_so() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    found = shown(("display_data", {"data": {"application/json": deep}, "metadata": {"x": deep}}))
    assert found == [{"output_type": "display_data", "data": TOO_DEEP, "metadata": {}}]


def test_updates_of_many_outputs_stay_within_bounds() -> None:
    displays = Displays(Budget(100_000))
    first = [display("small", "x") for _ in range(30)]
    found = shown(*first, display("l" * 10_000, "x", "update_display_data"), displays=displays)
    assert 5 < texts(found).count("l" * 10_000) < 10
    assert set(texts(found)) == {"l" * 10_000, TOO_MUCH}


def test_what_is_shown_no_longer_does_not_count() -> None:
    displays = Displays(Budget(20_000))
    updates = [display("u" * 10_000, "x", "update_display_data")] * 10
    again = [("clear_output", {}), display("old", "x"), *updates] * 3
    found = shown(display("old", "x"), *updates, *again, displays=displays)
    assert texts(found) == ["u" * 10_000]
