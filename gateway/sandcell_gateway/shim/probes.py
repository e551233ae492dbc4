"""The shim's own requests to the interpreter: what was sent before one is answered before it. Pure.

The answers of a shell (and of each of its subshells) come in the order of the requests. So
when a probe is answered, a request from before it that has no reply gets none any more.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from sandcell_wire.messages import Envelope, Message, make

PREFIX = "sandcell-probe-"
"""Ids begin so, for who reads the interpreter's log. A client's may, too: it says nothing."""


@dataclass
class Probes:
    """Those whose answer is awaited."""

    _open: dict[str, str] = field(default_factory=dict[str, str])
    """The request that each is about; empty: about none."""

    def __contains__(self, msg_id: str) -> bool:
        return msg_id in self._open

    def make(self, session: str, about: str = "", subshell: str | None = None) -> Message:
        """A kernel_info request; its answers reach no client."""
        msg_id = PREFIX + uuid.uuid4().hex
        self._open[msg_id] = about
        return make(
            "shell",
            "kernel_info_request",
            {},
            session=session,
            msg_id=msg_id,
            subshell_id=subshell,
        )

    def answered(self, head: Envelope, message: Message) -> str | None:
        """What the probe was about if this is the one reply to it; others are forged, or late."""
        if (head.msg_type, message.channel) != ("kernel_info_reply", "shell"):
            return None
        return self._open.pop(head.parent_id, None)

    def clear(self) -> None:
        """The interpreter is another one."""
        self._open.clear()
