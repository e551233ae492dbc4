"""Quantities for people."""

from __future__ import annotations

_STEP = 1024


def human_bytes(count: float) -> str:
    """As `512 B`, `1.5 MiB`, `20 GiB`: at most three digits and the unit."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    value, unit = float(count), units[0]
    for unit in units:  # noqa: B007 (the last one stays)
        if abs(value) < _STEP:
            break
        value /= _STEP
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
