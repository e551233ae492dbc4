"""Texts for quantities."""

from __future__ import annotations

import pytest

from sandcell_wire.scopes import Scope, covers, words
from sandcell_wire.units import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("5s", 5),
        ("30m", 1800),
        ("12h", 43_200),
        (" 30d ", 2_592_000),
        ("2w", 1_209_600),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5h", "30 d", "1y", "9" * 10, "²d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="such as 30m"):
        duration(text)


def test_what_scopes_contain() -> None:
    table = {held: [needed for needed in Scope if covers([held], needed)] for held in Scope}
    assert table == {
        Scope.READ: [Scope.READ],
        Scope.RUN: [Scope.READ, Scope.RUN],
        Scope.ADMIN: list(Scope),
    }
    assert not covers([], Scope.READ)
    assert (words([Scope.ADMIN, Scope.READ]), words([])) == ("read, admin", "none")
