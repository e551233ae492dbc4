"""Messages of every size arrive whole although the line is cut in the middle of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.support.kernels import Kernel
from tests.support.proxy import Way
from tests.support.route import Route

pytestmark = pytest.mark.linux

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def running(route: Route) -> Iterator[Kernel]:
    with route.kernel() as started:
        started.front.run("from comm import create_comm\nimport hashlib")
        yield started


def stream_of_bytes(size: int) -> bytes:
    """So many bytes that do not repeat."""
    return hashlib.shake_128(b"seed").digest(size)


def test_a_display_of_100_megabytes(route: Route, running: Kernel) -> None:
    size = 100 * MEBIBYTE
    before = route.proxy.cuts
    route.proxy.cut_after(Way.DOWN, 40 * MEBIBYTE)
    result = running.front.run(
        f"text = hashlib.shake_128(b'seed').hexdigest({size // 2})\n"
        "display({'text/plain': text}, raw=True)\n"
        "print('.')"
    )
    assert route.proxy.cuts > before
    (shown,) = result.of("display_data")
    text = shown["data"]["text/plain"]
    assert len(text) == size
    assert text == stream_of_bytes(size // 2).hex()
    assert result.stream() == ".\n"


def test_a_binary_buffer_of_a_comm(route: Route, running: Kernel) -> None:
    size = 20 * MEBIBYTE
    before = route.proxy.cuts
    route.proxy.cut_after(Way.DOWN, 7 * MEBIBYTE)
    result = running.front.run(
        f"body = hashlib.shake_128(b'seed').digest({size})\n"
        "comm = create_comm(target_name='t')\n"
        "comm.send({'n': 1}, buffers=[body, b'', b'\\x00'])"
    )
    assert route.proxy.cuts > before
    (message,) = [m for m in result.iopub if m["header"]["msg_type"] == "comm_msg"]
    assert message["content"]["data"] == {"n": 1}
    first, *others = (bytes(buffer) for buffer in message["buffers"])
    assert first == stream_of_bytes(size)
    assert others == [b"", b"\x00"]


@pytest.mark.parametrize("after", [1, 200, 600])
def test_one_byte(route: Route, running: Kernel, after: int) -> None:
    route.proxy.cut_after(Way.DOWN, after)
    result = running.front.run("import sys; _ = sys.stdout.write('x')")
    assert result.stream() == "x"
    assert result.statuses == ["busy", "idle"]
