"""ZMQ sockets read by their descriptor: nothing stalls or is lost, a full peer is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import zmq

from sandcell_wire.zmq_stream import MAX_BATCH, ZmqStream

PATIENCE = 20


class Sockets:
    """Makes sockets and keeps them until the test has ended."""

    def __init__(self) -> None:
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._made: list[zmq.Socket[bytes]] = []

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        self._made.append(self._context.socket(kind))
        return self._made[-1]

    def close(self) -> None:
        for socket in self._made:
            socket.close(0)
        self._context.term()


@pytest.fixture
def context() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    made.close()


class Inbox(list[list[bytes]]):
    """Collects messages and tells when there are enough."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()

    def take(self, frames: list[bytes]) -> None:
        self.append(frames)
        self.changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self) < count:
                self.changed.clear()
                await self.changed.wait()


async def test_messages_that_came_before_and_in_bursts_are_all_read(
    context: Sockets,
) -> None:
    receiver, sender = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    port = receiver.bind_to_random_port("tcp://127.0.0.1")
    sender.connect(f"tcp://127.0.0.1:{port}")
    count = MAX_BATCH * 5
    for number in range(count):
        sender.send_multipart([b"%d" % number, b"x"])
    assert receiver.poll(PATIENCE * 1000)
    inbox = Inbox()
    stream = ZmqStream(receiver, inbox.take)
    await inbox.until(count)
    assert inbox == [[b"%d" % number, b"x"] for number in range(count)]
    stream.close()
    stream.close()


async def test_two_sockets_that_answer_each_other_never_stall(
    context: Sockets,
) -> None:
    """Sending eats the descriptor's edge: what came meanwhile must still be read."""
    left, right = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    left.set_hwm(0)
    right.set_hwm(0)
    port = right.bind_to_random_port("tcp://127.0.0.1")
    left.connect(f"tcp://127.0.0.1:{port}")  # who connects can send at once
    inbox = Inbox()

    def answer(frames: list[bytes]) -> None:
        answering.send(frames)

    answering = ZmqStream(right, answer)
    asking = ZmqStream(left, inbox.take)
    for number in range(2000):
        asking.send([b"%d" % number])
        if number % 7 == 0:
            await asyncio.sleep(0)
    await inbox.until(2000)
    assert inbox == [[b"%d" % number] for number in range(2000)]
    asking.close()
    answering.close()


async def test_a_full_peer_is_waited_for_and_misses_nothing(
    context: Sockets,
) -> None:
    publisher, reader = context.socket(zmq.XPUB), context.socket(zmq.SUB)
    publisher.setsockopt(zmq.XPUB_NODROP, 1)
    publisher.setsockopt(zmq.SNDHWM, 5)
    reader.setsockopt(zmq.RCVHWM, 5)
    publisher.setsockopt(zmq.SNDBUF, 4096)
    reader.setsockopt(zmq.RCVBUF, 4096)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    reader.connect(f"tcp://127.0.0.1:{port}")
    reader.subscribe(b"")
    subscribed, room = Inbox(), asyncio.Event()
    stream = ZmqStream(publisher, subscribed.take, room.set)
    await subscribed.until(1)
    body = b"x" * 20_000
    sent = 0
    while stream.try_send([b"%d" % sent, body]):
        sent += 1
    assert not room.is_set()
    for number in range(sent):
        assert reader.poll(PATIENCE * 1000)
        assert reader.recv_multipart()[0] == b"%d" % number
    async with asyncio.timeout(PATIENCE):
        await room.wait()
    assert stream.try_send([b"again"])
    assert reader.recv_multipart() == [b"again"]
    stream.close()


async def test_a_paused_stream_reads_nothing_until_it_is_resumed(
    context: Sockets,
) -> None:
    receiver, sender = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    port = receiver.bind_to_random_port("tcp://127.0.0.1")
    sender.connect(f"tcp://127.0.0.1:{port}")
    inbox = Inbox()
    stream = ZmqStream(receiver, inbox.take)
    stream.pause()
    sender.send(b"1")
    assert receiver.poll(PATIENCE * 1000)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert inbox == []
    stream.resume()
    await inbox.until(1)
    stream.close()


async def test_a_receiver_that_fails_loses_one_message_and_no_more(context: Sockets) -> None:
    left, right = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    left.bind("inproc://fails")
    right.connect("inproc://fails")
    for number in range(3):
        right.send(b"%d" % number)
    inbox = Inbox()

    def take(frames: list[bytes]) -> None:
        inbox.take(frames)
        if frames == [b"0"]:
            raise ValueError

    stream = ZmqStream(left, take)
    await inbox.until(3)
    stream.close()
