"""A dead line is noticed; a slow one, a busy one and one that is not read are left alone."""

from __future__ import annotations

import asyncio
from typing import cast

from sandcell_kernel.keepalive import SILENT_ROUNDS, HeardConnection, watch

ROUND = 0.01
"""Seconds."""


class Line:
    """A connection and its transport. What happens in each round is scripted."""

    def __init__(self, *rounds: str) -> None:
        self.heard = False
        self.pings = 0
        self.aborted = False
        self.transport = self
        self._rounds = list(rounds)
        self._now = ""
        self._unsent = 1_000

    async def ping(self) -> None:
        self.pings += 1
        self._now = self._rounds.pop(0) if self._rounds else "silent"
        self.heard = self._now == "heard"
        if self._now == "blocked":
            await asyncio.Event().wait()

    def is_reading(self) -> bool:
        return self._now != "not read"

    def get_write_buffer_size(self) -> int:
        if self._now == "sending":
            self._unsent -= 1
        return self._unsent

    def abort(self) -> None:
        self.aborted = True


async def rounds_until_given_up(line: Line) -> int:
    async with asyncio.timeout(10):
        await watch(cast("HeardConnection", line), ROUND)
    assert line.aborted
    return line.pings


async def test_silence_is_death() -> None:
    assert await rounds_until_given_up(Line()) == SILENT_ROUNDS


async def test_every_sign_of_life_counts() -> None:
    for sign in ("heard", "not read", "sending"):
        line = Line("silent", "silent", sign)
        assert await rounds_until_given_up(line) == 3 + SILENT_ROUNDS, sign


async def test_a_ping_that_cannot_be_sent_is_no_sign_of_life() -> None:
    assert await rounds_until_given_up(Line("blocked", "blocked", "blocked")) == SILENT_ROUNDS
