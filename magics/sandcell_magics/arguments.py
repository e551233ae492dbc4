"""The words after a command: options and positions, with mistakes as one clear line."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import NoReturn

from sandcell_magics.context import UsageError


class Parser(argparse.ArgumentParser):
    """Never ends the process, never prints, guesses no abbreviations."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises `UsageError`."""
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        raise UsageError(f"{self.prog}: {message}; expected: {usage}")


def split(line: str) -> Sequence[str]:
    """The words of a line, as a shell would split them. Raises `UsageError`."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"%sandbox {line}: {error}") from None


def count(text: str) -> int:
    """A number from 1 to 500."""
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MAX_COUNT}, got {text!r}")
    return number


def seconds(text: str) -> float:
    """A time of 0 or more seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"expected seconds from 0 to {MAX_SECONDS:.0f}, got {text!r}"
        )
    return value


MAX_COUNT = 500
MAX_SECONDS = 7 * 86_400.0
