"""Streams of events become results; streams that were cut go on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell._answers import Lines, execution_event
from sandcell.errors import SessionExpiredError
from sandcell.results import Progress
from sandcell_wire.models import (
    ExecutionEnded,
    ExecutionModel,
    ExecutionOutput,
    ExecutionStarted,
    Problem,
    StreamFailed,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def model(**more: Any) -> ExecutionModel:
    facts = {"id": "x" * 8, "code": "", "status": "ok", "execution_count": 1, "detached": False}
    times = {"submitted_at": NOW, "started_at": NOW, "ended_at": NOW}
    return ExecutionModel(**{**facts, **times, **more})


def printed(seq: int, text: str) -> ExecutionOutput:
    content = {"name": "stdout", "text": text}
    return ExecutionOutput(seq=seq, msg_type="stream", content=content)


@given(
    st.lists(st.binary(max_size=9).map(lambda raw: raw.replace(b"\n", b"")), max_size=9), st.data()
)
def test_lines_are_cut_where_they_end(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cut = Lines()
    found: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += cut.feed(stream[:size])
        stream = stream[size:]
    assert found == [line for line in lines if line]


def test_a_stream_that_begins_again_repeats_nothing() -> None:
    heard: list[str] = []
    progress = Progress(uuid4(), lambda output: heard.append(output.content["text"]))
    for event in (
        ExecutionStarted(execution=model(status="running")),
        printed(2, "a"),
        printed(4, "b"),
        ExecutionStarted(execution=model(status="running")),
        printed(2, "a"),
        printed(4, "b"),
        printed(7, "c"),
    ):
        progress.take(event)
    progress.take(ExecutionEnded(execution=model()))
    result = progress.result()
    assert heard == ["a", "b", "c"]
    assert result.stdout == "abc"


def test_a_stream_that_fails_raises_what_the_gateway_says() -> None:
    problem = Problem.model_validate(
        {"title": "t", "status": 410, "detail": "it has ended", "code": "session_expired"}
    )
    with pytest.raises(SessionExpiredError, match="it has ended") as caught:
        execution_event(StreamFailed(problem=problem).model_dump_json().encode())
    assert caught.value.status == 410


def test_a_result_without_times_has_no_stages() -> None:
    progress = Progress(uuid4(), None)
    progress.take(ExecutionEnded(execution=model(started_at=None)))
    result = progress.result()
    assert result.timing == {}
    assert result.text == ""
