"""What commands give; every face shows it in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows under headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """Shown in the place of an empty table, or below it."""


@dataclass(frozen=True)
class Card:
    """Facts of one thing."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Text:
    """A line or more."""

    text: str


@dataclass(frozen=True)
class Shown:
    """Outputs of cells, as notebooks hold them (nbformat 4.5, "Code cells")."""

    outputs: Sequence[Mapping[str, Any]]


Result = Table | Card | Text | Shown
