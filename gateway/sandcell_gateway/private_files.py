"""Files for the gateway's user only, which appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file with mode 0600, in the place of one that is there. Raises `OSError`."""
    aside = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    aside.rename(path)
