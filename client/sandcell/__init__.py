"""Sandbox sessions for notebooks and programs: the client.

    import sandcell

    with sandcell.Client() as client:
        session = client.sessions.create(name="demo", wait=60)
        session.close()

Importing this package loads none of its parts; each comes on first use, so that
programs which only ask for the version or one error stay fast.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from sandcell._async.client import AsyncClient, AsyncSession, AsyncSessions
    from sandcell._requests import ChannelTarget
    from sandcell._sync.client import Client, Session, Sessions
    from sandcell.errors import (
        AuthenticationError,
        ConfigurationError,
        ConflictError,
        EmbeddedStartError,
        EngineUnavailable,
        ExecutionFailed,
        ExecutionTimedOut,
        ForbiddenError,
        GatewayError,
        GatewayUnreachable,
        HostDisconnected,
        InternalError,
        NotFoundError,
        OperationFailed,
        QuotaExceeded,
        RateLimited,
        RequestInFlight,
        RequestInvalid,
        RequestTimeout,
        SandcellError,
        SessionExpired,
        SessionNotFound,
        SessionPaused,
        Unavailable,
    )
    from sandcell.results import ExecutionError, ExecutionResult, Result
    from sandcell.settings import ClientSettings
    from sandcell_wire.models import (
        ExecutionOutput,
        FileModel,
        ProofKey,
        ProofList,
        ProofModel,
        Reason,
        SessionEvent,
        SessionModel,
        Stats,
    )
    from sandcell_wire.states import JournalState, Status

    __version__: str

_HOMES = {
    "sandcell._async.client": ("AsyncClient", "AsyncSession", "AsyncSessions"),
    "sandcell._sync.client": ("Client", "Session", "Sessions"),
    "sandcell._requests": ("ChannelTarget",),
    "sandcell.errors": (
        "AuthenticationError",
        "ConfigurationError",
        "ConflictError",
        "EmbeddedStartError",
        "EngineUnavailable",
        "ExecutionFailed",
        "ExecutionTimedOut",
        "ForbiddenError",
        "GatewayError",
        "GatewayUnreachable",
        "HostDisconnected",
        "InternalError",
        "NotFoundError",
        "OperationFailed",
        "QuotaExceeded",
        "RateLimited",
        "RequestInFlight",
        "RequestInvalid",
        "RequestTimeout",
        "SandcellError",
        "SessionExpired",
        "SessionNotFound",
        "SessionPaused",
        "Unavailable",
    ),
    "sandcell.results": ("ExecutionError", "ExecutionResult", "Result"),
    "sandcell.settings": ("ClientSettings",),
    "sandcell_wire.models": (
        "ExecutionOutput",
        "FileModel",
        "ProofKey",
        "ProofList",
        "ProofModel",
        "Reason",
        "SessionEvent",
        "SessionModel",
        "Stats",
    ),
    "sandcell_wire.states": ("JournalState", "Status"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "AsyncSession",
    "AsyncSessions",
    "AuthenticationError",
    "ChannelTarget",
    "Client",
    "ClientSettings",
    "ConfigurationError",
    "ConflictError",
    "EmbeddedStartError",
    "EngineUnavailable",
    "ExecutionError",
    "ExecutionFailed",
    "ExecutionOutput",
    "ExecutionResult",
    "ExecutionTimedOut",
    "FileModel",
    "ForbiddenError",
    "GatewayError",
    "GatewayUnreachable",
    "HostDisconnected",
    "InternalError",
    "JournalState",
    "NotFoundError",
    "OperationFailed",
    "ProofKey",
    "ProofList",
    "ProofModel",
    "QuotaExceeded",
    "RateLimited",
    "Reason",
    "RequestInFlight",
    "RequestInvalid",
    "RequestTimeout",
    "Result",
    "SandcellError",
    "Session",
    "SessionEvent",
    "SessionExpired",
    "SessionModel",
    "SessionNotFound",
    "SessionPaused",
    "Sessions",
    "Stats",
    "Status",
    "Unavailable",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("sandcell")
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
