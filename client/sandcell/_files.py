"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast


@contextmanager
def written_aside(target: Path) -> Generator[BinaryIO]:
    """A file for writing that takes the place of `target` at the end of the block.

    Nothing stays of it when the block fails. Only its owner can read it. Raises `OSError`.
    """
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield cast(BinaryIO, file)
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
