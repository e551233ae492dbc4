"""What runs tell while they go. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

OnLost = Literal["raise", "recreate"]
"""What a run does when the session it was to use has ended."""


@dataclass(frozen=True)
class RunProgress:
    """What a run does now."""

    stage: Literal["create", "upload", "execute", "recreate", "close"]
    detail: str
    """The file's path, or the session."""


OnProgress = Callable[[RunProgress], object]
