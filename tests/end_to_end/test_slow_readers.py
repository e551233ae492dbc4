"""A front end that stops reading loses nothing and holds up nobody's cell."""

from __future__ import annotations

import pytest

import sandcell
from tests.support.gateways import eventually
from tests.support.home import Home
from tests.support.kernels import kernel

pytestmark = pytest.mark.linux

DISPLAYS = 20_000
"""More than all the sockets on the way take: the marks are at 1,000 and 10,000 messages."""


def test_a_paused_reader_gets_everything_once_and_in_order(home: Home) -> None:
    with kernel("sandcell", home.environ, home.path) as started, sandcell.Client() as client:
        started.front.run("pass")
        msg_id = started.front.client.execute(
            f"for i in range({DISPLAYS}): display({{'text/plain': f'{{i:1000}}'}}, raw=True)"
        )
        (session,) = client.sessions.list()
        # The cell runs to its end although nobody reads.
        eventually("the cell starts", lambda: session.refresh().status.value == "active")
        eventually("the cell ends", lambda: session.refresh().status.value == "idle")
        result = started.front.collect(msg_id)
        shown = [content["data"]["text/plain"].strip() for content in result.of("display_data")]
        assert shown == [str(number) for number in range(DISPLAYS)]
        assert result.statuses == ["busy", "idle"]
        assert result.content["status"] == "ok"
