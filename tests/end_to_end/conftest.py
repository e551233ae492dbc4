"""What several end-to-end tests start with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import MakeHome
from tests.support.home import Home
from tests.support.kernels import Kernel, kernel
from tests.support.route import Route, open_route


@pytest.fixture
def running(home: Home) -> Iterator[Kernel]:
    """A kernel with the embedded gateway."""
    with kernel("sandcell", home.environ, home.path) as started:
        yield started


@pytest.fixture(scope="module")
def route(home_factory: MakeHome) -> Iterator[Route]:
    """One gateway for all faults of the line; it never notices more than lost connections."""
    with home_factory() as home, open_route(home) as opened:
        yield opened


@pytest.fixture
def own_route(home: Home) -> Iterator[Route]:
    """A gateway that one test may kill, or whose sessions it counts."""
    with open_route(home) as opened:
        yield opened
