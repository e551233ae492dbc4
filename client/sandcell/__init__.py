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
    from sandcell._async.client import AsyncClient, AsyncSessions
    from sandcell._async.commands import AsyncCommand
    from sandcell._async.session import AsyncSession
    from sandcell._requests import ChannelTarget
    from sandcell._sync.client import Client, Sessions
    from sandcell._sync.commands import Command
    from sandcell._sync.session import Session
    from sandcell.command_results import CommandResult
    from sandcell.errors import (
        AuthenticationError,
        CommandFailed,
        CommandTimedOut,
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
        RateLimitError,
        RequestInFlight,
        RequestInvalid,
        RequestTimeout,
        SandcellError,
        SessionExpiredError,
        SessionNotFound,
        SessionPaused,
        Unavailable,
    )
    from sandcell.results import ExecutionError, ExecutionResult, Result
    from sandcell.runs import RunProgress
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
    from sandcell_wire.scopes import Scope
    from sandcell_wire.states import JournalState, Status
    from sandcell_wire.tokens import NewToken, TokenModel

    __version__: str

_HOMES = {
    "sandcell._async.client": ("AsyncClient", "AsyncSessions"),
    "sandcell._async.session": ("AsyncSession",),
    "sandcell._async.commands": ("AsyncCommand",),
    "sandcell._sync.client": ("Client", "Sessions"),
    "sandcell._sync.session": ("Session",),
    "sandcell._sync.commands": ("Command",),
    "sandcell.command_results": ("CommandResult",),
    "sandcell._requests": ("ChannelTarget",),
    "sandcell.errors": (
        "AuthenticationError",
        "CommandFailed",
        "CommandTimedOut",
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
        "RateLimitError",
        "RequestInFlight",
        "RequestInvalid",
        "RequestTimeout",
        "SandcellError",
        "SessionExpiredError",
        "SessionNotFound",
        "SessionPaused",
        "Unavailable",
    ),
    "sandcell.results": ("ExecutionError", "ExecutionResult", "Result"),
    "sandcell.runs": ("RunProgress",),
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
    "sandcell_wire.tokens": ("NewToken", "TokenModel"),
    "sandcell_wire.scopes": ("Scope",),
    "sandcell_wire.states": ("JournalState", "Status"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "AsyncCommand",
    "AsyncSession",
    "AsyncSessions",
    "AuthenticationError",
    "ChannelTarget",
    "Client",
    "ClientSettings",
    "Command",
    "CommandFailed",
    "CommandResult",
    "CommandTimedOut",
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
    "NewToken",
    "NotFoundError",
    "OperationFailed",
    "ProofKey",
    "ProofList",
    "ProofModel",
    "QuotaExceeded",
    "RateLimitError",
    "Reason",
    "RequestInFlight",
    "RequestInvalid",
    "RequestTimeout",
    "Result",
    "RunProgress",
    "SandcellError",
    "Scope",
    "Session",
    "SessionEvent",
    "SessionExpiredError",
    "SessionModel",
    "SessionNotFound",
    "SessionPaused",
    "Sessions",
    "Stats",
    "Status",
    "TokenModel",
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
