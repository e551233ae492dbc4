"""Blocking calls. Written by hand: the one module of this package that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import BinaryIO, ParamSpec, TypeVar

PIECE = 1 << 20

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it."""
    return function(*args, **kwargs)


def pieces(file: BinaryIO) -> Generator[bytes]:
    """What is in a file, at most `PIECE` bytes at once."""
    while piece := file.read(PIECE):
        yield piece


def pause(seconds: float) -> None:
    """Wait so long."""
    time.sleep(seconds)
