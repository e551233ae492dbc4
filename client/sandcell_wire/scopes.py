"""What a token may do: one table, for both ends."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    """A right that a token can have."""

    READ = "read"
    """Look at one's own sessions, and at what they hold."""
    RUN = "run"
    """That, and everything that runs or changes something in them."""
    ADMIN = "admin"
    """That, and the owner's tokens."""


_CONTAINS = {
    Scope.READ: frozenset({Scope.READ}),
    Scope.RUN: frozenset({Scope.READ, Scope.RUN}),
    Scope.ADMIN: frozenset(Scope),
}


def covers(held: Iterable[Scope], needed: Scope) -> bool:
    """Whether one of these scopes is the needed one, or contains it."""
    return any(needed in _CONTAINS[scope] for scope in held)


def words(scopes: Iterable[Scope]) -> str:
    """As people read them: `read, run`, or `none`."""
    held = set(scopes)
    return ", ".join(scope.value for scope in Scope if scope in held) or "none"
