"""Running `%sandbox` lines in the local kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from sandcell.errors import SandcellError, explain
from sandcell_kernel.cells import Line
from sandcell_kernel.link import Link
from sandcell_magics import commands, render


class LineError(ValueError):
    """A line failed; the text is for the user, with the next step."""

    def __init__(self, error: SandcellError) -> None:
        super().__init__(explain(error))
        self.name = type(error).__name__


async def run(lines: Sequence[Line], link: Link) -> AsyncIterator[render.Output]:
    """The results of the lines, one after the other, as messages.

    Raises `LineError` or `UsageError`.
    """
    for line in lines:
        try:
            async for result in commands.run(line.text, link, line.body):
                for message in render.messages(result):
                    yield message
        except SandcellError as error:
            raise LineError(error) from error
