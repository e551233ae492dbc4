"""One front end's request on its way. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandcell_wire.execution import is_silent, stops_on_error
from sandcell_wire.messages import Envelope, Message


@dataclass(slots=True)
class Request:
    """A front end's request until its reply was delivered."""

    identities: list[bytes]
    message: Message
    envelope: Envelope
    busy: bool = False
    idle: bool = False
    sent: bool = False
    """It may have reached the session."""
    seen: int | None = None
    """The last number of the session that its front end had seen when it was first sent."""

    @property
    def msg_id(self) -> str:
        """Its id."""
        return self.envelope.msg_id

    @property
    def subshell(self) -> str | None:
        """The subshell that it is for; None is the main shell."""
        return self.envelope.subshell_id

    @property
    def on_main_shell(self) -> bool:
        """Whether SIGINT, which hits the main thread, can end it."""
        return self.message.channel == "shell" and self.subshell is None

    @property
    def executes(self) -> bool:
        """Whether it is a cell."""
        return self.envelope.executes

    @property
    def wants_reply(self) -> bool:
        """Whether it is over only with a reply."""
        return self.envelope.wants_reply

    @property
    def code(self) -> str:
        """A cell's text."""
        code = self._content.get("code", "")
        return code if isinstance(code, str) else ""

    @property
    def silent(self) -> bool:
        """Whether a cell is to run without being shown or counted."""
        return is_silent(self._content)

    @property
    def takes_questions(self) -> bool:
        """Whether the cell's front end answers `input()`."""
        return self._content.get("allow_stdin", True) is not False

    @property
    def stops_on_error(self) -> bool:
        """Whether a cell's failure ends those behind it."""
        return stops_on_error(self._content)

    @property
    def _content(self) -> dict[str, Any]:
        # Of content that is no object the session's refusal tells the front end.
        return self.message.content_if_any()
