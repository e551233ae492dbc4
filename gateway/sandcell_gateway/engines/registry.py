"""Engines by name: whatever the entry-point group `sandcell.engines` holds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from sandcell_gateway.engines.base import Engine, EngineError, Probe

GROUP = "sandcell.engines"
AUTO = "auto"


def names() -> list[str]:
    """All engines that are installed, whether they work here or not."""
    return sorted(_points())


def load(name: str) -> Engine:
    """The engine of that name. Raises `EngineError`."""
    point = _points().get(name)
    if point is None:
        raise EngineError(f"there is no engine {name!r}; installed are {', '.join(names())}")
    try:
        made = point.load()()
    except Exception as error:
        raise EngineError(f"engine {name} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(made, Engine):
        raise EngineError(f"engine {name} ({point.value}) is no sandcell Engine")
    return made


def choose(setting: str = AUTO) -> tuple[Engine, Probe]:
    """The engine to use and what its probe said.

    `auto` takes the strongest that works; as root only one that isolates. Raises
    `EngineError` with what was tried and why each failed.
    """
    if setting == AUTO:
        return _strongest([load(name) for name in names()])
    engine = load(setting)
    probe = engine.probe()
    if not probe.works:
        raise EngineError(f"engine {setting} does not work here: {probe.reason}. {probe.hint}")
    return engine, probe


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _strongest(engines: Iterable[Engine]) -> tuple[Engine, Probe]:
    tried: list[str] = []
    for engine in sorted(engines, key=lambda engine: -engine.strength):
        if engine.strength < 0:
            tried.append(f"{engine.name}: only when it is named")
        elif not (probe := engine.probe()).works:
            tried.append(f"{engine.name}: {probe.reason}. {probe.hint}")
        elif os.geteuid() == 0 and not engine.isolated:
            tried.append(f"{engine.name}: isolates nothing, and this is root")
        else:
            return engine, probe
    raise EngineError("no engine works here:\n" + "\n".join(f"- {line}" for line in tried))
