"""What a `%sandbox` command works on, and how it says that it cannot."""

from __future__ import annotations

from typing import Protocol

from sandcell import AsyncClient, AsyncSession, SandcellError


class UsageError(ValueError):
    """A command that cannot be understood; one line that says what to type instead."""


class NoSession(SandcellError):
    """The face has no session now; the text says why."""


class Context(Protocol):
    """One face: a notebook's kernel, an IPython, or the command line."""

    @property
    def client(self) -> AsyncClient:
        """The gateway."""
        ...

    async def session(self) -> AsyncSession:
        """The face's current session, as the gateway sees it now.

        Raises `NoSession`, or another `SandcellError` when it cannot be had.
        """
        ...

    async def start(self, name: str | None) -> AsyncSession:
        """Use a new session from now on; one with a name is kept when the face ends.

        Raises a `SandcellError`.
        """
        ...

    async def attach(self, name: str) -> AsyncSession:
        """Use this session from now on; it is only left when the face ends.

        Raises `SessionNotFound` or another `SandcellError`.
        """
        ...

    async def follow(self) -> None:
        """Until what ran in the session that was attached to has ended; shows what it prints."""
        ...

    async def keep(self) -> None:
        """The current session is not closed when the face ends."""
        ...

    async def close(self) -> AsyncSession:
        """Close the current session; the face forgets it. Raises as `session` does."""
        ...
