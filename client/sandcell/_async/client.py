"""A gateway and its sessions, for asyncio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

from sandcell import _requests
from sandcell._async.transport import AsyncTransport
from sandcell._requests import ChannelTarget
from sandcell.errors import ConflictError, SessionNotFound
from sandcell.settings import ClientSettings
from sandcell_wire.models import Health, Reason, SessionList, SessionModel
from sandcell_wire.states import Status


class AsyncSession:
    """One session. What it shows is as new as the last answer; `refresh` asks again."""

    def __init__(self, transport: AsyncTransport, model: SessionModel) -> None:
        self._transport = transport
        self.model = model
        """Everything that the gateway said of it."""

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__} {self.id}{name} {self.status.value}>"

    @property
    def id(self) -> UUID:
        """Never changes."""
        return self.model.id

    @property
    def name(self) -> str | None:
        """Unique among the owner's live sessions."""
        return self.model.name

    @property
    def status(self) -> Status:
        """What it is doing."""
        return self.model.status

    @property
    def reason(self) -> Reason | None:
        """Why it is in this status."""
        return self.model.reason

    async def refresh(self) -> Self:
        """Ask the gateway for its present state. Raises `SessionNotFound`."""
        return await self._send(_requests.get(self.id))

    async def restart(self, *, interpreter: str | None = None) -> Self:
        """A fresh interpreter over the same files; returns when it is ready.

        `interpreter` is the id that its messages will carry in `header.session`.
        """
        return await self._send(_requests.restart(self.id, interpreter))

    async def interrupt(self) -> Self:
        """Interrupt whatever runs."""
        return await self._send(_requests.interrupt(self.id))

    async def close(self, *, grace: float = 0.0) -> Self:
        """Close it; with `grace` after so many seconds in which nobody attached.

        Harmless when it is closed.
        """
        return await self._send(_requests.close(self.id, grace))

    async def _send(self, request: _requests.ApiRequest) -> Self:
        self.model = await self._transport.send(SessionModel, request)
        return self


class AsyncSessions:
    """The owner's sessions."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        language: str = "python",
        interpreter: str | None = None,
        image: str | None = None,
        wait: float = 0.0,
    ) -> AsyncSession:
        """Make a session; returns when it is ready or has failed, or after `wait` seconds.

        A `name` keeps it when its kernel ends. `env` goes to the sandbox only. `image`
        is the prefix of a Python environment, for the embedded gateway.
        """
        request = _requests.create(
            name=name,
            env=env,
            metadata=metadata,
            language=language,
            interpreter=interpreter,
            image=image,
            wait=wait,
        )
        return AsyncSession(self._transport, await self._transport.send(SessionModel, request))

    async def list(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        status: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        search: str | None = None,
        order_by: str | None = None,
    ) -> Sequence[AsyncSession]:
        """Sessions, newest first; live ones unless `status` names others.

        `status` takes statuses and the groups `running` and `paused`; `search` is part
        of a name or the beginning of an id; `order_by` is created_at, updated_at or
        name, with `-` for descending.
        """
        request = _requests.list_sessions(
            limit=limit,
            offset=offset,
            status=status,
            labels=labels or {},
            search=search,
            order_by=order_by,
        )
        page = await self._transport.send(SessionList, request)
        return [AsyncSession(self._transport, model) for model in page.sessions]

    async def get(self, id: UUID | str) -> AsyncSession:
        """The session with this id, or the live one with this name or unique beginning of an id.

        Raises `SessionNotFound`, or `ConflictError` when several begin so.
        """
        if (exact := _as_uuid(id)) is not None:
            model = await self._transport.send(SessionModel, _requests.get(exact))
            return AsyncSession(self._transport, model)
        word = str(id)
        found = await self.list(search=word, limit=_requests.MAX_PAGE)
        named = [session for session in found if session.name == word]
        begin = [session for session in found if str(session.id).startswith(word)]
        return _only(word, named or begin)


def _as_uuid(id: UUID | str) -> UUID | None:
    if isinstance(id, UUID):
        return id
    try:
        return UUID(id)
    except ValueError:
        return None


def _only(word: str, found: Sequence[AsyncSession]) -> AsyncSession:
    if not found:
        raise SessionNotFound(
            f"you have no live session {word!r}", hint="List them with `sandcell sessions`."
        )
    if len(found) > 1:
        raise ConflictError(
            f"{len(found)} sessions begin with {word!r}", hint="Give more of the id."
        )
    return found[0]


class AsyncClient:
    """A gateway. Without `url` (and without one in the settings) the embedded one.

    An async context manager; `aclose` does the same.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        settings: ClientSettings | None = None,
    ) -> None:
        if settings is None or url is not None or token is not None:
            given = settings.model_dump(exclude_unset=True) if settings is not None else {}
            settings = ClientSettings.load(**{**given, "url": url, "token": token})
        self.settings = settings
        self._transport = AsyncTransport(settings)
        self.sessions = AsyncSessions(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release the connections. Harmless when done before; sessions live on."""
        await self._transport.aclose()

    @property
    def remote(self) -> bool:
        """Whether the gateway has a URL; otherwise it is the embedded one."""
        return self._transport.remote

    async def health(self) -> Health:
        """Is the gateway there, and of which version? Starts an embedded one."""
        return await self._transport.send(Health, _requests.health())

    async def channel_target(
        self, session_id: UUID | str, *, client: str, after: int | None = None
    ) -> ChannelTarget:
        """Where to open the session's WebSocket.

        `client` names this client across reconnects; `after` is the last sequence
        number it has seen. Starts an embedded gateway that has ended.
        """
        path = _requests.channel_path(session_id, client, after)
        return await self._transport.channel_target(path)
