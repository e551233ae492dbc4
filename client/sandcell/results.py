"""What code has given: text, results of every MIME type, an error, times. No I/O."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast
from uuid import UUID

from sandcell.errors import ExecutionFailed, ExecutionTimedOut
from sandcell.insights import insights
from sandcell_wire.models import (
    ExecutionEnded,
    ExecutionEvent,
    ExecutionModel,
    ExecutionOutput,
)
from sandcell_wire.outputs import Displays, Outputs

OnOutput = Callable[[ExecutionOutput], object]
"""Is called with each output as it comes."""


@dataclass(frozen=True)
class Result:
    """Something that code has shown or returned, in every form that it has. Notebooks show it."""

    data: Mapping[str, Any]
    """By MIME type, as in Jupyter: text, base64 for binary data, objects for JSON."""
    metadata: Mapping[str, Any]
    is_value: bool
    """Whether it is the value of the last expression, rather than displayed."""

    @property
    def text(self) -> str:
        """The plain form; empty if it has none."""
        return str(self.data.get("text/plain", ""))

    @property
    def html(self) -> str | None:
        """The HTML form."""
        return cast("str | None", self.data.get("text/html"))

    @property
    def png(self) -> bytes | None:
        """The picture."""
        found = self.data.get("image/png")
        return None if found is None else base64.b64decode(found)

    @property
    def json(self) -> Any:
        """The JSON form."""
        return self.data.get("application/json")

    def _repr_mimebundle_(self, **_: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return self.data, self.metadata


@dataclass(frozen=True)
class ExecutionError:
    """What the code has raised."""

    name: str
    """The exception's class, e.g. `ZeroDivisionError`."""
    value: str
    """Its text."""
    traceback: Sequence[str]
    """As the interpreter shows it, with colours (ANSI)."""

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


@dataclass(frozen=True)
class ExecutionResult:
    """How code ended in a session, and all it has shown."""

    session_id: UUID
    model: ExecutionModel
    """Everything that the gateway said of it."""
    stages: Mapping[str, float] | None = None
    """Seconds by stage of a whole run (`sandcell.timing`)."""
    recreated: bool = False
    """Whether a run made a new session, because the one that it was to use had ended."""

    @property
    def id(self) -> str:
        """Of the execution; `GET /history/{id}` finds it again."""
        return self.model.id

    @property
    def status(self) -> str:
        """`ok`, `error`, `aborted`, or `unknown` when its end was lost."""
        return self.model.status

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.model.status == "ok"

    @property
    def execution_count(self) -> int | None:
        """The interpreter's count."""
        return self.model.execution_count

    @property
    def timed_out(self) -> bool:
        """Whether it was interrupted because it ran longer than its `timeout`."""
        return self.model.timed_out

    @property
    def lost_messages(self) -> int:
        """Messages that are missing, because the session's journal was full."""
        return self.model.lost_messages

    @property
    def timing(self) -> dict[str, float]:
        """Seconds by stage: `queue` before it ran, and `execute`; of a run all others, too."""
        if self.stages is not None:
            return dict(self.stages)
        model = self.model
        if model.started_at is None or model.ended_at is None:
            return {}
        return {
            "queue": (model.started_at - model.submitted_at).total_seconds(),
            "execute": (model.ended_at - model.started_at).total_seconds(),
        }

    @property
    def insights(self) -> Sequence[str]:
        """What would have made a run faster: the most worthwhile first."""
        return insights(self.timing)

    def _stream(self, name: str) -> str:
        return "".join(
            output["text"]
            for output in self.model.outputs or ()
            if output["output_type"] == "stream" and output["name"] == name
        )

    @cached_property
    def stdout(self) -> str:
        """All that it has printed."""
        return self._stream("stdout")

    @cached_property
    def stderr(self) -> str:
        """All that it has written to stderr."""
        return self._stream("stderr")

    @cached_property
    def results(self) -> Sequence[Result]:
        """What it has shown, and at last its value if it has one."""
        return [
            Result(output["data"], output["metadata"], output["output_type"] == "execute_result")
            for output in self.model.outputs or ()
            if "data" in output
        ]

    @property
    def text(self) -> str:
        """The plain form of its value; empty if it has none."""
        return next((result.text for result in self.results if result.is_value), "")

    @cached_property
    def error(self) -> ExecutionError | None:
        """What it has raised."""
        for output in self.model.outputs or ():
            if output["output_type"] == "error":
                return ExecutionError(output["ename"], output["evalue"], output["traceback"])
        return None

    def raise_for_error(self) -> Self:
        """Itself, if the code ended well. Raises `ExecutionFailed` or `ExecutionTimedOut`."""
        if self.ok:
            return self
        if self.timed_out:
            raise ExecutionTimedOut("the code ran longer than its timeout", result=self)
        why = str(self.error) if self.error else f"the code ended with status {self.status}"
        raise ExecutionFailed(why, result=self)


class Progress:
    """How far the stream of one execution has come; a second stream goes on where one broke."""

    def __init__(self, session_id: UUID, on_output: OnOutput | None) -> None:
        self._session_id = session_id
        self._on_output = on_output
        self._outputs = Outputs(Displays())
        self._seen = 0
        self._result: ExecutionResult | None = None

    def take(self, event: ExecutionEvent) -> None:
        """One event."""
        if isinstance(event, ExecutionOutput) and event.seq > self._seen:
            self._seen = event.seq
            self._outputs.add(event.msg_type, event.content)
            if self._on_output is not None:
                self._on_output(event)
        if isinstance(event, ExecutionEnded):
            model = event.execution.model_copy(update={"outputs": self._outputs.shown})
            self._result = ExecutionResult(self._session_id, model)

    def result(self) -> ExecutionResult:
        """What it came to, after the last event."""
        assert self._result is not None
        return self._result
