"""Cells with `%sandbox` lines: run here, in their turn, before the rest goes on. Pure.

In each subshell at most one such cell waits or runs; what comes behind it in the same
subshell is held until its lines are done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandcell_kernel.answers import Answers
from sandcell_kernel.cells import LeadingLines, Line, leading_lines
from sandcell_kernel.request import Request
from sandcell_wire.execution import set_sandcell_metadata


class LineRunner(Protocol):
    """Who runs the lines."""

    def run_lines(self, msg_id: str, lines: Sequence[Line]) -> None:
        """Run a cell's `%sandbox` lines; `lines_output` and `lines_done` tell how it went."""
        ...

    def cancel_lines(self) -> None:
        """The user interrupts: end the lines that run."""
        ...


@dataclass(slots=True)
class _LocalCell:
    """A cell with `%sandbox` lines, and what came after it in the same subshell."""

    request: Request
    leading: LeadingLines
    running: bool = False
    refusal: tuple[str, str] | None = None
    """The name and text of the error that it ends with, whatever its lines do."""
    held: list[Request] = field(default_factory=list[Request])


class LocalCells:
    """The cells that wait or run here.

    `forward` sends on a cell whose lines are done, `take` routes what was held.
    """

    def __init__(
        self,
        runner: LineRunner,
        answers: Answers,
        forward: Callable[[Request], None],
        take: Callable[[Request], None],
    ) -> None:
        self._runner = runner
        self._answers = answers
        self._forward = forward
        self._take = take
        self._cells: dict[str | None, _LocalCell] = {}

    @property
    def subshells(self) -> list[str | None]:
        """Where cells wait or run."""
        return list(self._cells)

    def hold(self, request: Request) -> bool:
        """Keep a request back that came behind such a cell; False when there is none."""
        cell = self._cells.get(request.subshell)
        if cell is None or request.message.channel != "shell":
            return False
        cell.held.append(request)
        return True

    def add(self, request: Request) -> bool:
        """Take a cell that begins with `%sandbox` lines; False for any other request."""
        if not request.executes or b"%sandbox" not in bytes(request.message.content):
            return False
        leading = leading_lines(request.code)
        if leading is None:
            return False
        self._cells[request.subshell] = _LocalCell(request, leading)
        return True

    def refuse(self, request: Request, name: str, text: str) -> None:
        """End a cell with an error, in a moment: the cells behind it are on their way.

        A front end that runs all cells sends them one after the other; answered at
        once, the first would fail alone and the next ones run.
        """
        cell = _LocalCell(request, LeadingLines((), alone=True), True, (name, text))
        self._cells[request.subshell] = cell
        self._runner.run_lines(request.msg_id, ())

    def start(self, subshell: str | None) -> None:
        """Nothing is before the subshell's cell any more: run its lines."""
        cell = self._cells.get(subshell)
        if cell is None or cell.running:
            return
        cell.running = True
        self._answers.begin(cell.request)
        if cell.leading.alone and not cell.request.silent:
            self._echo(cell.request)
        self._runner.run_lines(cell.request.msg_id, cell.leading.lines)

    def _echo(self, request: Request) -> None:
        content = {"code": request.code, "execution_count": self._answers.last_count()}
        self._answers.publish(request, "execute_input", content)

    def abort(self, subshell: str | None) -> None:
        """What was before the subshell's cell failed: it and the cells behind it do not run."""
        cell = self._cells.pop(subshell, None)
        if cell is None:
            return
        self._answers.abort(cell.request)
        for request in self._abort_executions(cell.held):
            self._take(request)

    @property
    def running(self) -> Request | None:
        """A cell whose lines run."""
        return next((cell.request for cell in self._cells.values() if cell.running), None)

    def output(self, msg_id: str, msg_type: str, content: Mapping[str, Any]) -> None:
        """Show a result, as a message of this type, under the cell."""
        for cell in self._cells.values():
            if cell.request.msg_id == msg_id:
                self._answers.publish(cell.request, msg_type, content)

    def done(self, msg_id: str, error: tuple[str, str] | None) -> None:
        """The lines are done, or failed with a name and a text: go on with the cell."""
        for subshell, cell in list(self._cells.items()):
            if cell.request.msg_id == msg_id:
                del self._cells[subshell]
                self._end(cell, error)

    def _end(self, cell: _LocalCell, error: tuple[str, str] | None) -> None:
        request, held = cell.request, cell.held
        error = cell.refusal or error
        if error is not None:
            self._answers.error(request, *error)
            if request.stops_on_error:
                held = self._abort_executions(held)
        elif cell.leading.alone:
            self._answers.done(request)
        else:
            set_sandcell_metadata(request.message, lines_done=len(cell.leading.lines))
            self._forward(request)
        for waiting in held:
            self._take(waiting)

    def _abort_executions(self, held: list[Request]) -> list[Request]:
        """Abort the cells; the rest stays."""
        kept: list[Request] = []
        for request in held:
            if request.executes:
                self._answers.abort(request)
            else:
                kept.append(request)
        return kept
