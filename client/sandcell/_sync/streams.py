# Generated from _async by scripts/unasync.py; change it there.
"""Streams of events that go on where they broke, whatever happens to the line."""

from __future__ import annotations

import time
from collections.abc import Generator, Callable
from contextlib import closing
from typing import TypeVar

from sandcell._sync._threads import pause
from sandcell._sync.transport import ATTEMPTS, Transport
from sandcell._requests import ApiRequest
from sandcell.errors import GatewayUnreachable, HostDisconnected, SandcellError

RESUME_SECONDS = 60.0
"""How long a broken stream is tried to be had again; what it tells of goes on."""
FIRST_PAUSE, MAX_PAUSE = 0.2, 5.0
"""Bounds of the wait between two attempts, in seconds."""

T = TypeVar("T")


class Patience:
    """How long to go on without an event: few attempts before the first, long after it."""

    def __init__(self) -> None:
        self._has_begun = False
        self._rest()

    def _rest(self) -> None:
        self.wait, self._attempts, self._since = FIRST_PAUSE, 0, time.monotonic()

    def heard(self) -> None:
        """An event came."""
        self._has_begun = True
        self._rest()

    def broken(self, error: SandcellError) -> None:
        """The line broke. Raises `error` when it is time to give up."""
        self._attempts += 1
        is_over = (
            time.monotonic() - self._since > RESUME_SECONDS
            if self._has_begun
            else self._attempts >= ATTEMPTS
        )
        if is_over:
            raise error
        if self._attempts > 1:
            self.wait = min(self.wait * 2, MAX_PAUSE)


def events(
    transport: Transport,
    request: Callable[[], ApiRequest],
    parse: Callable[[bytes], T],
    is_last: Callable[[T], bool],
) -> Generator[T]:
    """The events of a streamed answer up to the last one.

    After a break `request` says what to ask for; what it repeats, comes again. `parse`
    raises what an event that tells of a failure stands for. Raises a `SandcellError`.
    """
    patience = Patience()
    while True:
        try:
            with closing(transport.lines(request())) as lines:
                for line in lines:
                    event = parse(line)
                    patience.heard()
                    yield event
                    if is_last(event):
                        return
            patience.broken(
                GatewayUnreachable(
                    "the gateway ended its answer too early", hint="Its log says more."
                )
            )
        except (GatewayUnreachable, HostDisconnected) as error:
            patience.broken(error)
        pause(patience.wait)
