"""A kernel that ends while the gateway does not answer leaves no session behind."""

from __future__ import annotations

from contextlib import ExitStack

import psutil
import pytest

from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.proxy import BOTH, Way
from tests.support.route import Route

pytestmark = pytest.mark.linux


def live(own_route: Route) -> int:
    with own_route.client() as client:
        return len(client.sessions.list())


def leavers(route: Route) -> list[psutil.Process]:
    return gateways.processes(route.home, "sandcell_kernel.leaving")


def test_a_gateway_that_does_not_answer_just_then_closes_the_session_later(
    own_route: Route,
) -> None:
    with ExitStack() as stack:
        with own_route.kernel() as running:
            running.front.run("pass")
            stack.enter_context(own_route.proxy.stalled(*BOTH))
        assert leavers(own_route)
        assert live(own_route) == 1
    eventually("the session closes", lambda: live(own_route) == 0)
    eventually("the helper ends", lambda: not leavers(own_route))


def test_a_session_that_was_being_made_at_shutdown_is_closed(own_route: Route) -> None:
    """Its kernel never learned its id."""
    with own_route.proxy.stalled(Way.DOWN):
        with own_route.kernel():
            eventually("the session is made", lambda: live(own_route) == 1)
        assert live(own_route) == 1
    eventually("the session closes", lambda: live(own_route) == 0)
    eventually("the helper ends", lambda: not leavers(own_route))
    with own_route.client() as client:
        assert len(client.sessions.list(status=["terminated"])) == 1
