"""Many sessions come and go, by many clients at once, and nothing of them stays.

`SANDCELL_CHURN` says how many; 500 is what a release is tried with.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from sqlalchemy import create_engine, text

from tests.support import gateways
from tests.support.processes import processes_of
from tests.support.route import Route

pytestmark = [pytest.mark.linux, pytest.mark.slow]

SESSIONS = int(os.environ.get("SANDCELL_CHURN", "30"))
CLIENTS = 20
READY = 300.0


def used(route: Route, name: str) -> str:
    """Make a session, run something of each kind in it, and delete it."""
    with route.client() as client, client.sessions.create(name=name, wait=READY) as session:
        session.files.write("word", name)
        text = session.execute("open('word').read()").raise_for_error().text
        assert session.commands.run("cat word").raise_for_error().stdout == name
        return text


@pytest.mark.timeout(60 + 10 * SESSIONS)
def test_sessions_that_come_and_go_leave_nothing(own_route: Route) -> None:
    gateway = psutil.Process(own_route.gateway_pid)
    names = [f"n{number}" for number in range(SESSIONS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        # What stays open is open then: connections to the store are kept.
        list(pool.map(lambda name: used(own_route, name), names[:CLIENTS]))
        gateways.eventually("clients go", lambda: own_route.connections == 0)
        descriptors = gateway.num_fds()
        assert list(pool.map(lambda name: used(own_route, name), names)) == [repr(n) for n in names]
    home = own_route.home
    gateways.eventually("clients go", lambda: own_route.connections == 0)
    gateways.eventually("files are closed", lambda: gateway.num_fds() <= descriptors)
    left = [process for process in processes_of(home.state) if process.pid != gateway.pid]
    assert left == []
    assert list((home.state / "sessions").iterdir()) == []
    assert [path.name for path in home.runtime.glob("*/*") if path.is_dir()] == []
    with create_engine(f"sqlite:///{home.state / 'gateway.db'}").connect() as store:
        query = text("SELECT count(*) FROM sessions WHERE status != 'terminated'")
        assert store.execute(query).scalar() == 0
