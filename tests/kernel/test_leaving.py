"""What a kernel that had no time left leaves to another process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sandcell import GatewayUnreachable
from sandcell_kernel import leaving
from sandcell_kernel.claims import Claims, Identity, State
from sandcell_kernel.leaving import Leaving

ME = Identity("/c.json", "a.ipynb", True, 1, "/", "python", "")


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Ids of the sessions that were closed."""
    ids: list[str | None] = []
    monkeypatch.setattr(Leaving, "_close", lambda self: ids.append(self.session_id))
    return ids


def test_a_session_that_a_successor_has_taken_stays(
    tmp_path: Path, closed: list[str | None]
) -> None:
    """The notebook was reopened before the gateway could be told that it was closed."""
    claims = Claims(tmp_path / "kernels")
    claim = claims.create("one", ME)
    claim.write(State.CLOSING)
    left = Leaving(60.0, "me", "one", None, str(claim.path), State.CLOSING.value)
    claim.close()
    left.carry_out()
    assert closed == ["one"]
    found = claims.take(ME, hold=15.0, grace=60.0)
    assert found is not None
    found[0].write(State.RUNNING)
    left.carry_out()
    assert closed == ["one"]
    found[0].close()


def test_it_tries_again_until_the_gateway_is_there(
    closed: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    close, tries = Leaving._close, [0]

    def unreachable(left: Leaving) -> None:
        tries[0] += 1
        if tries[0] < 3:
            raise GatewayUnreachable("down")
        close(left)

    monkeypatch.setattr(Leaving, "_close", unreachable)
    monkeypatch.setattr(leaving, "RETRY", 0.0)
    left = Leaving(0.0, "me", "one", None, None, State.CLOSING.value)
    left.carry_out()
    assert (closed, tries) == (["one"], [3])
    monkeypatch.setattr(leaving, "PATIENCE", 0.0)
    tries[0] = 0
    with pytest.raises(GatewayUnreachable):
        replace(left).carry_out()
