"""Where the time of a run went: stages that add up to the whole. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

STAGES = ("connect", "create", "upload", "queue", "execute", "transfer", "close")
"""In the order in which they come. `queue` waits behind other code, `transfer` is all that
the network and the gateway take on top of what the session did."""


class Stopwatch:
    """Measures the stages of one run."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun = clock()
        self._spent: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """What is done in here counts for this stage."""
        begun = self._clock()
        try:
            yield
        finally:
            self._spent[name] = self._spent.get(name, 0.0) + self._clock() - begun

    def note(self, spent: Mapping[str, float]) -> None:
        """What somebody else has measured, in seconds."""
        for name, seconds in spent.items():
            self._spent[name] = self._spent.get(name, 0.0) + seconds

    def stages(self) -> dict[str, float]:
        """Seconds by stage; what belongs to none is `transfer`, so that they add up."""
        rest = self._clock() - self._begun - sum(self._spent.values())
        spent = {**self._spent, "transfer": self._spent.get("transfer", 0.0) + max(rest, 0.0)}
        return {name: spent[name] for name in STAGES if name in spent}
