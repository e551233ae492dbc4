"""What happens to a session, as it is told: numbering, server-sent events, and the SDK."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest

from sandcell import (
    AsyncClient,
    AsyncSession,
    Client,
    GatewayUnreachable,
    RequestInvalid,
    RequestTimeout,
    SessionEvent,
    SessionExpiredError,
    SessionNotFound,
    _answers,
    _requests,
)
from sandcell_gateway import server
from sandcell_gateway.routes import streaming
from sandcell_gateway.sessions.events import MAX_EVENTS, EventLog
from sandcell_wire.models import Reason
from sandcell_wire.states import Status
from tests.gateway.support import (
    PATIENCE,
    TOKEN,
    Gateway,
    gateway_program,
    running_gateway,
    until,
)
from tests.support.home import Home

ID = "0d3a7c52-6f0e-4b3c-9a43-5f1f0c9d2e11"
WHY = Reason(code="exit", text="it failed")
Told = tuple[str, str | None, str]


def told(event: SessionEvent) -> Told:
    return event.type, event.old and event.old.value, event.new.value


# -- the log -------------------------------------------------------------------------------------


def log() -> EventLog:
    return EventLog(ID, Status.INITIALIZING, None)


def test_who_has_nothing_is_told_the_present_state() -> None:
    events = log()
    (present,) = events.since(None)
    assert told(present.event) == ("status_changed", None, "initializing")
    events.note(Status.ERROR, WHY)
    assert [told(each.event) for each in events.since(None)] == [
        ("status_changed", None, "error"),
        ("error", None, "error"),
    ]
    first, last = events.since(None)
    assert last.event.reason == WHY
    assert first.id is None, "it is not all of the present state"
    assert events.since(last.id) == []


def test_who_lost_the_line_is_told_what_came_later() -> None:
    events = log()
    (present,) = events.since(None)
    assert events.since(present.id) == []
    events.note(Status.IDLE, None)
    events.note(Status.IDLE, None)
    events.note(Status.ACTIVE, None)
    first, second = events.since(present.id)
    assert told(first.event) == ("status_changed", "initializing", "idle")
    assert told(second.event) == ("status_changed", "idle", "active")
    assert events.since(first.id) == [second]
    assert not events.has_newer(second.id)


@pytest.mark.parametrize("last", ["", "x", "-", "5be1c1a10d3a-0", "\u0663", "a-" + "9" * 99])
def test_what_is_not_known_is_the_present_state(last: str) -> None:
    """Of another gateway, or nobody's."""
    events = log()
    events.note(Status.IDLE, None)
    (present,) = events.since(last)
    assert present.event.old is None


def test_numbers_of_the_future_are_not_known() -> None:
    events = log()
    (present,) = events.since(None)
    epoch = str(present.id).partition("-")[0]
    for number in ("1", "9" * 30, "-1", "\u0661", ""):
        assert events.since(f"{epoch}-{number}")[0].event.old is None


def test_it_is_bounded_and_says_so() -> None:
    events = log()
    (begin,) = events.since(None)
    for number in range(MAX_EVENTS + 10):
        events.note((Status.IDLE, Status.ACTIVE)[number % 2], None)
    (present,) = events.since(begin.id)
    assert present.event.old is None, "some are missing"


# -- what the client makes of it -----------------------------------------------------------------


def data(kind: str, old: str | None, new: str) -> list[bytes]:
    event = {"type": kind, "session_id": ID, "old": old, "new": new, "reason": None}
    text = json.dumps({**event, "at": "2026-01-01T12:00:00Z"})
    return [f"id: {new}".encode(), f"event: {kind}".encode(), f"data: {text}".encode()]


def read(feed: _answers.EventFeed, *events: tuple[str, str | None, str]) -> list[Told]:
    lines = [line for event in events for line in (b": still there", *data(*event))]
    return [told(event) for line in lines if (event := feed.take(line)) is not None]


def test_the_present_state_is_no_news_to_who_knows_it() -> None:
    feed = _answers.EventFeed()
    begin: Told = ("status_changed", None, "idle")
    assert read(feed, begin) == [begin]
    assert feed.last == "idle"
    assert read(feed, begin) == [], "a gateway restarted, and nothing else happened"
    assert read(feed, ("status_changed", None, "error"), ("error", None, "error")) == [
        ("status_changed", "idle", "error"),
        ("error", "idle", "error"),
    ]
    assert read(feed, ("status_changed", None, "error"), ("error", None, "error")) == []
    end: list[Told] = [("status_changed", None, "terminated"), ("terminated", None, "terminated")]
    assert [kind for kind, *_ in read(feed, *end)] == ["status_changed", "terminated"]


# -- the whole way -------------------------------------------------------------------------------


@asynccontextmanager
async def raw(gateway: Gateway, session: AsyncSession, **headers: str) -> AsyncGenerator[Any]:
    """The lines of the stream as they come."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    path = f"{gateway.url}/v1/sessions/{session.id}/events"
    async with (
        httpx.AsyncClient(timeout=PATIENCE) as http,
        http.stream("GET", path, headers=bearer | headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield answer.aiter_lines()


async def test_the_stream(
    gateway: Gateway, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT", 0.01)
    session = await client.sessions.create(wait=PATIENCE)
    async with raw(gateway, session) as lines:
        first = [await anext(lines) for _ in range(4)]
        number = first[0].removeprefix("id: ")
        assert first[1] == "event: status_changed"
        assert json.loads(first[2].removeprefix("data: "))["new"] == "idle"
        assert first[3] == ""
        assert (await anext(lines)).startswith(":"), "the line stands"
    await session.restart()
    async with raw(gateway, session, **{"Last-Event-ID": number}) as lines:
        found = [line async for line in _until(lines, '"new":"idle"')]
        assert [json.loads(line[6:])["old"] for line in found if line.startswith("data: ")] == [
            "idle",
            "initializing",
        ]


async def _until(lines: Any, text: str) -> AsyncGenerator[str]:
    async for line in lines:
        yield line
        if text in line:
            return


async def test_watching_a_session_to_its_end(gateway: Gateway, client: AsyncClient) -> None:
    session = await client.sessions.create(env={"FAKE_SHIM": "slow"})
    seen: list[SessionEvent] = []
    ended: list[SessionEvent] = []
    watching = asyncio.create_task(
        session.watch(on_status_changed=seen.append, on_terminated=ended.append)
    )
    await until(lambda: seen, "the present state")
    assert (seen[0].old, seen[0].new) == (None, Status.INITIALIZING)
    async with gateway.channel(session.id) as channel:
        for word in ("busy", "rest"):
            await channel.send(word)
        await until(lambda: len(seen) > 2, "both moves")
    await (await client.sessions.get(session.id)).close()
    async with asyncio.timeout(PATIENCE):
        await watching
    assert [event.new.value for event in seen] == ["initializing", "active", "idle", "terminated"]
    assert [event.old for event in seen[1:]] == [event.new for event in seen[:-1]]
    assert [told(event) for event in ended] == [("terminated", "idle", "terminated")]
    assert session.status is Status.TERMINATED
    assert session.reason is not None
    assert [told(event) async for event in session.events()] == [
        ("status_changed", None, "terminated"),
        ("terminated", None, "terminated"),
    ]


async def test_an_error_is_told(client: AsyncClient) -> None:
    class Enough(Exception):
        pass

    def enough(event: SessionEvent) -> None:
        assert event.reason == WHY
        raise Enough

    session = await client.sessions.create(env={"FAKE_SHIM": "fail"})
    with pytest.raises(Enough):
        await session.watch(on_error=enough)
    assert session.status is Status.ERROR


async def test_only_the_owner_is_told(gateway: Gateway, client: AsyncClient) -> None:
    session = await client.sessions.create()
    transport = httpx.AsyncHTTPTransport(uds=str(gateway.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as other:
        answer = await other.get(f"/v1/sessions/{session.id}/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
    session.model = session.model.model_copy(update={"id": ID})
    with pytest.raises(SessionNotFound):
        await session.watch()


def test_it_goes_on_after_the_gateway_was_killed(
    fake_shims: Home, sandcell_environ: dict[str, str]
) -> None:
    """On the same port; what happened meanwhile is known by where it led."""
    seen: list[SessionEvent] = []
    ready = threading.Event()

    def note(event: SessionEvent) -> None:
        seen.append(event)
        ready.set()

    with gateway_program(sandcell_environ) as first:
        with Client(first.url, TOKEN) as client:
            session = client.sessions.create(wait=PATIENCE)
        with Client(first.url, TOKEN) as watching:
            watched = watching.sessions.get(session.id)
            thread = threading.Thread(target=lambda: watched.watch(on_status_changed=note))
            thread.start()
            assert ready.wait(PATIENCE)
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
            port = first.url.rsplit(":", 1)[1]
            with (
                gateway_program(sandcell_environ, "--port", port) as second,
                Client(second.url, TOKEN) as client,
            ):
                client.sessions.get(session.id).close()
                thread.join(PATIENCE)
                assert not thread.is_alive()
    assert [event.new.value for event in seen] == ["idle", "terminated"]
    assert seen[1].old is Status.IDLE


async def test_who_listens_does_not_hold_the_gateway_up(
    fake_shims: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GRACEFUL_SECONDS", 1000 * PATIENCE)
    async with aclosing(_listening()) as events, asyncio.timeout(PATIENCE):
        async for _ in events:
            pass
    async with running_gateway() as gateway, gateway.client() as client:
        (session,) = await client.sessions.list()
        await session.close()


async def _listening() -> AsyncGenerator[SessionEvent]:
    """Events of a session, as long as its gateway runs, which ends at once."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway())
        client = await stack.enter_async_context(gateway.client())
        session = await client.sessions.create(wait=PATIENCE)
        lines = client._transport.lines(_requests.events(session.id, None))
        async with aclosing(lines):
            async for line in lines:
                gateway.server.should_exit = True
                event = _answers.EventFeed().take(line)
                if event is not None:
                    yield event


# -- waiting for a status ------------------------------------------------------------------------


async def test_wait_for(gateway: Gateway, client: AsyncClient) -> None:
    session = await client.sessions.create(env={"FAKE_SHIM": "slow"})
    waiting = asyncio.create_task(session.wait_for("idle", timeout=PATIENCE))
    with pytest.raises(RequestTimeout, match=r"is initializing after 0\.05 seconds, not paused"):
        await (await client.sessions.get(session.id)).wait_for("paused", timeout=0.05)
    async with gateway.channel(session.id) as channel:
        await channel.send("busy")
        await session.wait_for("active", timeout=PATIENCE)
        assert not waiting.done()
        await channel.send("rest")
    assert (await waiting).status is Status.IDLE
    assert await session.wait_for("running", timeout=0) is session
    with pytest.raises(RequestInvalid, match="unknown status 'asleep'; expected one of: running"):
        await session.wait_for("asleep", timeout=PATIENCE)
    waiting = asyncio.create_task(session.wait_for("paused", "error", timeout=PATIENCE))
    await (await client.sessions.get(session.id)).close()
    with pytest.raises(SessionExpiredError):
        await waiting
    assert (await session.wait_for("terminated", timeout=0)).status is Status.TERMINATED


async def test_wait_for_a_gateway_that_is_away(fake_shims: Home) -> None:
    async with running_gateway() as gateway:
        client = gateway.client()
        session = await client.sessions.create(wait=PATIENCE)
        await session.close()
    with pytest.raises(GatewayUnreachable):
        await session.wait_for("idle", timeout=0.01)
    await client.aclose()
