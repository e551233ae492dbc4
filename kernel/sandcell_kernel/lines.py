"""Running `%sandbox` lines in the local kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from sandcell import SandcellError
from sandcell_kernel.link import Link
from sandcell_magics import commands, render


class LineError(ValueError):
    """A line failed; the text is for the user, with the next step."""


async def run(lines: Sequence[str], link: Link) -> AsyncIterator[render.MimeBundle]:
    """The results of the lines, one after the other. Raises `LineError` or `UsageError`."""
    for line in lines:
        try:
            yield render.bundle(await commands.run(line, link))
        except SandcellError as error:
            raise LineError(f"{error} {error.hint or ''}".strip()) from error
