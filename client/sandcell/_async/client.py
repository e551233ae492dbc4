"""A gateway and its sessions, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from sandcell import _requests
from sandcell._async.session import AsyncSession
from sandcell._async.tokens import AsyncTokens
from sandcell._async.transport import AsyncTransport
from sandcell._requests import ChannelTarget
from sandcell.errors import ConflictError, SessionNotFound
from sandcell.settings import ClientSettings
from sandcell_wire.models import (
    Health,
    ProofKey,
    ProofKeys,
    SessionList,
    SessionModel,
    Stats,
)


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
        limits: Mapping[str, float | str] | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
    ) -> AsyncSession:
        """Make a session; returns when it is ready or has failed, or after `wait` seconds.

        A `name` keeps it when its kernel ends. `env` goes to the sandbox only. `image`
        is the prefix of a Python environment, for the embedded gateway. `limits` may
        hold `memory` and `disk` (bytes, or text such as `4GiB`), `cpus` and `processes`.
        Calls with the same `idempotency_key` within a day make one session: give one to
        try again after a `RequestTimeout` or `GatewayUnreachable`.
        """
        request = _requests.create(
            name=name,
            env=env,
            metadata=metadata,
            language=language,
            interpreter=interpreter,
            image=image,
            limits=limits,
            wait=wait,
            key=idempotency_key or uuid4().hex,
        )
        return AsyncSession(self._transport, await self._transport.send(SessionModel, request))

    async def list(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        status: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        type: str | None = None,
        search: str | None = None,
        order_by: str | None = None,
    ) -> Sequence[AsyncSession]:
        """Sessions, newest first; live ones unless `status` names others.

        `status` takes statuses and the groups `running` and `paused`; `type` is the label
        of that name; `search` is part of a name or of a label's value, or the beginning of
        an id; `order_by` is created_at, updated_at or name, with `-` for descending.
        `limit` is 500 at most; `iterate` has no limit.
        """
        request = _requests.list_sessions(
            limit=limit,
            offset=offset,
            status=status,
            labels=labels or {},
            type=type,
            search=search,
            order_by=order_by,
        )
        page = await self._transport.send(SessionList, request)
        return [AsyncSession(self._transport, model) for model in page.sessions]

    async def iterate(
        self,
        *,
        status: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        type: str | None = None,
        search: str | None = None,
        order_by: str | None = None,
        page: int = _requests.MAX_PAGE,
    ) -> AsyncGenerator[AsyncSession]:
        """All that `list` finds, asked for `page` at a time.

        None comes twice; what is made or closed meanwhile may be missed.
        """
        seen: set[UUID] = set()
        offset = 0
        while True:
            found = await self.list(
                limit=page,
                offset=offset,
                status=status,
                labels=labels,
                type=type,
                search=search,
                order_by=order_by,
            )
            for session in found:
                if session.id not in seen:
                    seen.add(session.id)
                    yield session
            offset += len(found)
            if len(found) < page:
                return

    async def get(self, id: UUID | str) -> AsyncSession:
        """The session with this id, or the live one with this name or unique beginning of an id.

        Raises `SessionNotFound`, or `ConflictError` when several begin so.
        """
        if (exact := _as_uuid(id)) is not None:
            model = await self._transport.send(SessionModel, _requests.get(exact))
            return AsyncSession(self._transport, model)
        word = str(id)
        found = [session async for session in self.iterate(search=word)]
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
        self.tokens = AsyncTokens(self._transport)

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

    async def stats(self) -> Stats:
        """How many of your sessions are in each status, and what the gateway has for them."""
        return await self._transport.send(Stats, _requests.stats())

    async def proof_keys(self) -> Sequence[ProofKey]:
        """The public keys that the gateway's proofs are checked with, former ones too."""
        return (await self._transport.send(ProofKeys, _requests.proof_keys())).keys

    async def channel_target(
        self, session_id: UUID | str, *, client: str, after: int | str | None = None
    ) -> ChannelTarget:
        """Where to open the session's WebSocket.

        `client` names this client across reconnects; `after` is the last sequence
        number it has seen. Starts an embedded gateway that has ended.
        """
        path = _requests.channel_path(session_id, client, after)
        return await self._transport.channel_target(path)
