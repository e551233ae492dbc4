"""Gateway and shim need little memory however much is printed and whoever does not read."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.home import Home
from tests.support.proxy import Way
from tests.support.route import open_route

pytestmark = pytest.mark.linux

PRINTED = 1 << 30
"""Bytes that the cell prints."""
GATEWAY_BOUND = 16 << 20
"""Most bytes that the gateway grows by: two buffers of 1 MiB for each channel, and some air."""
SHIM_BOUND = 160 << 20
"""Most bytes that a shim grows by: newest records (8 MiB), and 1,000 messages on their way."""


def resident(pid: int) -> int:
    """Bytes of memory in use (proc_pid_smaps_rollup(5))."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Rss") * 1024


def peak(pid: int) -> int:
    """The most that ever was in use, in bytes (proc_pid_status(5))."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM") * 1024


def _kilobytes(path: Path, field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB$", path.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("flush", [True, False], ids=["flushed", "gathered"])
def test_a_gigabyte_for_a_client_that_does_not_read(
    home: Home, record_property: Callable[[str, object], None], flush: bool
) -> None:
    piece = 1 << 16
    with open_route(home) as route, route.kernel() as running, ExitStack() as stack:
        running.front.run("pass")
        pids = {"gateway": route.gateway_pid, "shim": gateways.shim(home).pid}
        before = {name: resident(pid) for name, pid in pids.items()}
        stack.enter_context(route.proxy.stalled(Way.DOWN))
        running.front.client.execute(
            f"line = 'x' * {piece - 1}\n"
            f"for i in range({PRINTED // piece}): print(line, flush={flush})\n"
            "open('printed', 'w')"
        )
        eventually("the cell has printed", (route.workspace / "printed").exists, patience=300)
        eventually("it ends", lambda: route.status() == "idle", patience=300)
        grown = {name: peak(pid) - before[name] for name, pid in pids.items()}
        for name, count in grown.items():
            record_property(f"{name}_grew_by_bytes", count)
        assert grown["gateway"] < GATEWAY_BOUND
        assert grown["shim"] < SHIM_BOUND
