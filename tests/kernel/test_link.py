"""How the kernel gets its session."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from sandcell import GatewayUnreachable, SandcellError
from sandcell.settings import ClientSettings
from sandcell_kernel.channel import After, Channel, _raise_if_final
from sandcell_kernel.claims import Claims, Identity
from sandcell_kernel.link import Link
from tests.support.home import Home


class Sessions:
    """A gateway that makes sessions, and whose first answer is lost."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def create(self, **wanted: Any) -> SimpleNamespace:
        self.keys.append(wanted["idempotency_key"])
        if len(self.keys) == 1:
            raise GatewayUnreachable("the answer was lost")
        return SimpleNamespace(id=uuid.uuid4())


def make_link(home: Home, router: Any) -> Link:
    identity = Identity.of_this_process(Path("kernel.json"), {})
    claims = Claims(home.path / "claims")
    return Link(router, SimpleNamespace(), ClientSettings.load(), identity, claims)  # type: ignore[arg-type]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_create_whose_answer_was_lost_is_sent_again_with_its_key(home: Home) -> None:
    """By the next cell; otherwise the first session would be nobody's."""
    router: Any = SimpleNamespace(interpreter="0" * 32, last_seq=0)
    link = make_link(home, router)
    sessions = link.client.sessions = Sessions()  # type: ignore[assignment]
    with pytest.raises(GatewayUnreachable):
        await link._obtain()
    await link._obtain()
    link._forget()
    await link._obtain()
    await link.client.aclose()
    lost, again, another = sessions.keys
    assert lost == again != another


def test_numbers_that_a_loss_of_power_took_are_given_again_and_not_ignored() -> None:
    told: list[str] = []
    router: Any = SimpleNamespace(
        interpreter="", last_seq=90, notify=told.append, connected=lambda: None
    )
    nothing: Any = SimpleNamespace()
    link = Channel(router, nothing, nothing, lambda: None)
    hello = {"interpreter": "i", "isolated": True, "engine": "e"}
    link.after = 90
    link._hello({**hello, "seq": 95})
    assert (link.after, router.last_seq, told) == (90, 90, [])
    link._hello({**hello, "seq": 70})
    assert (link.after, router.last_seq) == (70, 70)
    assert "lost its newest messages" in told[0]


async def test_after_a_refused_token_the_channel_goes_on_where_it_was(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was shown comes again."""
    refused = asyncio.Event()
    router: Any = SimpleNamespace(
        interpreter="0" * 32, last_seq=0, failing=False, failed=lambda why: refused.set()
    )
    begun: list[After] = []

    async def run(channel: Channel, session: Any, after: After) -> None:
        begun.append(after)
        channel.after = 42
        raise SandcellError("the gateway refused the token")

    monkeypatch.setattr(Channel, "run", run)
    link = make_link(home, router)
    link.client.sessions = Sessions()  # type: ignore[assignment]
    link.client.sessions.keys.append("an earlier one")  # type: ignore[attr-defined]
    life = asyncio.create_task(link.run())
    for _ in range(2):
        await asyncio.wait_for(refused.wait(), 10)
        refused.clear()
        link.want()
    await asyncio.wait_for(refused.wait(), 10)
    life.cancel()
    await link.client.aclose()
    assert begun == [0, 42, 42]


@pytest.mark.parametrize(
    ("status", "final"), [(401, True), (403, True), (404, False), (502, False)]
)
def test_only_a_refused_token_is_final(status: int, final: bool) -> None:
    """Other answers may be a proxy's, before a gateway that restarts."""
    error = InvalidStatus(Response(status, "", Headers()))
    if final:
        with pytest.raises(SandcellError, match="refused the token"):
            _raise_if_final(error)
    else:
        _raise_if_final(error)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"detail": "the token has expired"}', "refused the token: the token has expired$"),
        (b"<html>", "refused the token$"),
        (b"[]", "refused the token$"),
        (b"", "refused the token$"),
    ],
)
def test_a_refused_token_says_why(body: bytes, told: str) -> None:
    with pytest.raises(SandcellError, match=told) as caught:
        _raise_if_final(InvalidStatus(Response(401, "", Headers(), body)))
    assert "SANDCELL_TOKEN" in str(caught.value.hint)


async def test_after_an_interrupted_attach_no_later_cell_is_failed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the session that was left fails when that is decided, not afterwards."""
    moves: list[str] = []
    reached: list[str] = []
    router: Any = SimpleNamespace(
        interpreter="0" * 32, last_seq=0, failing=False, reached=False, detaches=False
    )
    router.moved = moves.append

    async def run(channel: Channel, session: Any, after: After) -> None:
        reached.append(session.name)
        await asyncio.Event().wait()

    async def get(name: str) -> SimpleNamespace:
        return SimpleNamespace(id=uuid.uuid4(), name=name, status=None)

    monkeypatch.setattr(Channel, "run", run)
    link = make_link(home, router)
    link.client.sessions = SimpleNamespace(create=lambda **_: get("mine"), get=get)  # type: ignore[assignment]
    life = asyncio.create_task(link.run())
    await until(lambda: reached == ["mine"])
    attaching = asyncio.create_task(link.attach("silent"))
    await until(lambda: "silent" in reached)
    attaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attaching
    decided = len(moves)
    await until(lambda: reached == ["mine", "silent", "mine"])
    life.cancel()
    await link.client.aclose()
    assert decided == len(moves) == 2
