"""Channels: bytes pass unchanged, whatever their size, and every end has its code."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import uuid

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode

from sandcell import AsyncClient, AsyncSession
from sandcell_gateway.server import KEEPALIVE, SpliceProtocol
from sandcell_gateway.splice import BUFFER_BYTES, FrameWalker, close_frame
from tests.gateway.support import PATIENCE, Gateway


@pytest.fixture
async def session(client: AsyncClient) -> AsyncSession:
    return await client.sessions.create(wait=PATIENCE)


async def test_text_and_binary_pass_unchanged(gateway: Gateway, session: AsyncSession) -> None:
    async with gateway.channel(session.id, "client=me&after=17&other=x") as channel:
        hello = json.loads(await channel.recv())
        assert hello["path"] == "/channels?client=me&after=17"
        assert channel.subprotocol == "v1.channels.sandcell"
        for data in ("text", "ünïcödé", b"", bytes(range(256)), b"x" * 70_000):
            await channel.send(data)
            assert await channel.recv() == data
        await (await channel.ping())


async def test_small_messages_are_not_held_back(gateway: Gateway, session: AsyncSession) -> None:
    """TCP_NODELAY, or a cell waits 40 ms for a delayed acknowledgement."""
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        (connection,) = (
            found
            for found in gateway.server.server_state.connections
            if isinstance(found, SpliceProtocol)
        )
        there = connection.transport.get_extra_info("socket")
        here = channel.transport.get_extra_info("socket")
        for sock in (there, here):
            with socket.socket(fileno=os.dup(sock.fileno())) as own:
                assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_client_that_vanished_is_given_up(gateway: Gateway, session: AsyncSession) -> None:
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        for connection in gateway.server.server_state.connections:
            there = connection.transport.get_extra_info("socket")
            with socket.socket(fileno=os.dup(there.fileno())) as own:
                assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                for name, value in KEEPALIVE.items():
                    assert own.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


async def test_frames_of_100_mb_pass(gateway: Gateway, session: AsyncSession) -> None:
    big = os.urandom(1 << 20) * 100
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        await channel.send(big)
        assert await channel.recv() == big


async def test_a_slow_reader_does_not_fill_the_gateway(
    gateway: Gateway, session: AsyncSession
) -> None:
    """The gateway stops reading from the shim instead of keeping what nobody fetches."""
    before = psutil.Process().memory_info().rss
    piece = b"x" * (1 << 20)
    async with gateway.channel(session.id, max_queue=1) as channel:
        await channel.recv()

        async def send() -> None:
            for _ in range(300):
                await channel.send(piece)

        sender = asyncio.create_task(send())
        done, _ = await asyncio.wait([sender], timeout=2)
        assert not done, "300 MB went into buffers that should be bounded"
        grown = psutil.Process().memory_info().rss - before
        assert grown < 60 * BUFFER_BYTES
        for _ in range(300):
            assert len(await channel.recv()) == len(piece)
        await sender


async def test_the_shims_close_code_reaches_the_client(
    gateway: Gateway, session: AsyncSession
) -> None:
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        await channel.send("bye")
        with pytest.raises(ConnectionClosed):
            await channel.recv()
        assert (channel.close_code, channel.close_reason) == (4001, "as asked")


async def test_a_dead_shim_says_come_back_and_there_is_a_new_one(
    gateway: Gateway, session: AsyncSession
) -> None:
    async with gateway.channel(session.id) as channel:
        first = json.loads(await channel.recv())
        await channel.send("die")
        with pytest.raises(ConnectionClosedError):
            await channel.recv()
        assert channel.close_code == 1012
    async with gateway.channel(session.id) as channel:
        second = json.loads(await channel.recv())
    assert second["pid"] != first["pid"]
    assert second["adopted"], "the new shim takes over the sandbox"


@pytest.mark.parametrize("which", ["unknown", "closed"])
async def test_no_session_means_4404(gateway: Gateway, session: AsyncSession, which: str) -> None:
    await session.close()
    wanted = session.id if which == "closed" else uuid.uuid4()
    async with gateway.channel(wanted) as channel:
        with pytest.raises(ConnectionClosedError):
            await channel.recv()
        assert channel.close_code == 4404
        reason = "session_expired" if which == "closed" else "session_not_found"
        assert channel.close_reason == reason


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("", "client"),
        ("client=", "client"),
        ("client=a%20b", "client"),
        ("client=" + "c" * 65, "client"),
        ("client=c&after=-1", "after"),
        ("client=c&after=x", "after"),
        ("client=c&after=9223372036854775808", "after"),
    ],
)
async def test_bad_queries(gateway: Gateway, query: str, place: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.channel(uuid.uuid4(), query):
            pass
    assert refused.value.response.status_code == 422
    assert place in json.loads(refused.value.response.body)["detail"]


async def test_only_our_subprotocol_is_spoken(gateway: Gateway, session: AsyncSession) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.channel(session.id, subprotocols=["v1.kernel.websocket.jupyter.org"]):
            pass
    assert "v1.channels.sandcell" in json.loads(refused.value.response.body)["detail"]


async def test_attaching_counts_and_withdraws_a_close(
    gateway: Gateway, session: AsyncSession
) -> None:
    await session.close(grace=60)
    assert session.model.closes_at is not None
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        assert (await session.refresh()).model.closes_at is None


async def test_a_stopping_gateway_says_come_back(gateway: Gateway, session: AsyncSession) -> None:
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        for connection in list(gateway.server.server_state.connections):
            connection.shutdown()
        with pytest.raises(ConnectionClosedError):
            await channel.recv()
        assert channel.close_code == 1012


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.PING]), st.integers(0, 70_000)
        ),
        max_size=6,
    ),
    st.lists(st.integers(1, 100_000), max_size=20),
)
def test_the_walker_finds_the_ends_of_frames(
    frames: list[tuple[Opcode, int]], cuts: list[int]
) -> None:
    data = b""
    ends = {0}
    for opcode, size in frames:
        length = min(size, 125) if opcode is Opcode.PING else size
        data += Frame(opcode, bytes(length)).serialize(mask=False)
        ends.add(len(data))
    walker, position = FrameWalker(), 0
    for cut in [*cuts, len(data)]:
        piece = data[position : position + cut]
        walker.feed(piece)
        position += len(piece)
        assert walker.between_frames == (position in ends)
    assert not walker.closed
    walker.feed(close_frame(1012, "reason"))
    assert walker.closed == (position in ends)
