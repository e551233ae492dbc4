"""Quantities for people."""

from __future__ import annotations

import re

_STEP = 1024
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw]?)")


def human_bytes(count: float) -> str:
    """As `512 B`, `1.5 MiB`, `20 GiB`: at most three digits and the unit."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    value, unit = float(count), units[0]
    for unit in units:  # noqa: B007 (the last one stays)
        if abs(value) < _STEP:
            break
        value /= _STEP
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def duration(text: str) -> int:
    """The seconds of a text such as `90`, `30m`, `12h`, `30d` or `2w`. Raises `ValueError`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected a time such as 30m, 12h or 30d, got {text!r}")
    return int(found[1]) * _SECONDS[found[2]]
