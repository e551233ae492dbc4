"""Which requests have ended unseen, when messages of the session were lost. Pure.

The shim names the requests that were open when it told of a loss. One that it had
and does not name has ended, but its end may still be on its way; and one that was
not acknowledged may have come too late to be named. So a kernel_info request is sent
behind them as a probe, and what has no end when the probe is answered has lost it:

* for acknowledged requests on control, which a busy kernel answers too;
* for others on their own channel and subshell, where answers come in order.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container, Mapping, Sequence

from sandcell_kernel.request import Request
from sandcell_wire.messages import Message, make

PROBE = "kernel_info_request"


class LostEnds:
    """Sends probes with `send`; `requests` and `unacknowledged` are the router's own."""

    def __init__(
        self,
        requests: Mapping[str, Request],
        unacknowledged: Container[str],
        send: Callable[[str, Message], None],
    ) -> None:
        self._requests = requests
        self._unacknowledged = unacknowledged
        self._send = send
        self._probes: dict[str, list[str]] = {}
        """A probe's id → the requests that it decides on."""

    def probe(self, still_open: Sequence[str], interpreter: str) -> None:
        """Messages were lost, and these requests had not ended then."""
        named = frozenset(still_open)
        groups: dict[tuple[str, str | None], list[str]] = {}
        for msg_id, request in self._requests.items():
            if not request.sent or msg_id in named or request.message.channel == "stdin":
                continue  # stdin has no answers
            place = (request.message.channel, request.subshell)
            place = place if msg_id in self._unacknowledged else ("control", None)
            groups.setdefault(place, []).append(msg_id)
        for (channel, subshell), msg_ids in groups.items():
            probe_id = uuid.uuid4().hex
            message = make(
                channel, PROBE, {}, session=interpreter, msg_id=probe_id, subshell_id=subshell
            )
            self._probes[probe_id] = msg_ids
            self._send(probe_id, message)

    def answered(self, probe_id: str) -> list[Request]:
        """The requests whose ends are lost, now that a probe is answered."""
        msg_ids = self._probes.pop(probe_id, [])
        return [self._requests[msg_id] for msg_id in msg_ids if msg_id in self._requests]

    def clear(self) -> None:
        """The session is gone."""
        self._probes.clear()
