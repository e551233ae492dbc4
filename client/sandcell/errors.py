"""Everything that this package raises, one tree:

    SandcellError
    ├── ConfigurationError (ValueError)     a setting cannot be used
    ├── GatewayUnreachable (ConnectionError) no gateway answered
    │   └── EmbeddedStartError              the embedded gateway could not be started
    ├── RequestTimeout (TimeoutError)       the gateway did not answer in time
    ├── ExecutionFailed (RuntimeError)      the code ended with an error; `result` has it
    │   └── ExecutionTimedOut (TimeoutError) it ran longer than its timeout
    ├── CommandFailed (RuntimeError)        the command did not return 0; `result` has it
    │   └── CommandTimedOut (TimeoutError)  it ran longer than its timeout
    └── GatewayError                        the gateway answered with an error
        ├── RequestInvalid (ValueError)     the request cannot be right: change it
        ├── AuthenticationError (PermissionError)  no valid token
        ├── ForbiddenError (PermissionError)       not allowed here
        ├── NotFoundError (LookupError)     there is no such thing
        │   ├── SessionNotFound
        │   └── SessionExpiredError              it existed, and has ended
        ├── ConflictError                   not in this state, or the name is taken
        │   ├── RequestInFlight             the same request is being done; ask again
        │   └── SessionPaused
        ├── QuotaExceeded                   less first, then again
        ├── RateLimitError                  again, later: `retry_after` seconds
        ├── Unavailable                     again, later or once repaired
        │   ├── EngineUnavailable
        │   └── HostDisconnected
        └── OperationFailed                 it was tried and failed
            └── InternalError               the gateway's fault; report `request_id`

The gateway names stable codes, never classes; a code this version does not know
arrives as a plain `GatewayError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sandcell_wire.codes import Code

if TYPE_CHECKING:
    from sandcell.command_results import CommandResult
    from sandcell.results import ExecutionResult


class SandcellError(Exception):
    """Base of all. Its text is for users: one line, what happened."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        """What to do next."""
        self.status = status
        """HTTP status of the gateway's answer."""
        self.code = code
        """Stable word for programs, as in `sandcell_wire.codes.Code`."""
        self.request_id = request_id
        """Finds the request in the gateway's log."""


def explain(error: SandcellError) -> str:
    """What happened and what to do next: sentences on one line, for people."""
    text, hint = (" ".join(part.split()) for part in (str(error), error.hint or ""))
    if hint[:1].islower():  # it goes on, as in "there is no session 1; list yours with ..."
        return _closed(f"{text.rstrip('.')}; {hint}")
    return " ".join(_closed(part) for part in (text, hint) if part)


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?", "!", "…")) else f"{sentence}."


class ConfigurationError(SandcellError, ValueError):
    """A setting cannot be used; names it and what was expected."""


class GatewayUnreachable(SandcellError, ConnectionError):
    """No gateway answered at the configured place."""

    may_be_done = True
    """Whether what was asked for may have been done all the same: the request was sent."""


class EmbeddedStartError(GatewayUnreachable):
    """The embedded gateway could not be started."""

    may_be_done = False


class RequestTimeout(SandcellError, TimeoutError):
    """The gateway did not answer in time; what was asked may still happen."""


class ExecutionFailed(SandcellError, RuntimeError):
    """Code ended with an error."""

    def __init__(self, message: str, *, result: ExecutionResult) -> None:
        super().__init__(message)
        self.result = result
        """All that it has shown."""


class ExecutionTimedOut(ExecutionFailed, TimeoutError):
    """Code was interrupted because it ran longer than its timeout."""


class CommandFailed(SandcellError, RuntimeError):
    """A command did not return 0."""

    def __init__(self, message: str, *, result: CommandResult) -> None:
        super().__init__(message)
        self.result = result
        """All that it has written."""


class CommandTimedOut(CommandFailed, TimeoutError):
    """A command was ended because it ran longer than its timeout."""


class GatewayError(SandcellError):
    """The gateway answered with an error."""


class RequestInvalid(GatewayError, ValueError):
    """The gateway cannot accept the request as it is."""


class AuthenticationError(GatewayError, PermissionError):
    """The token is missing or not valid."""


class ForbiddenError(GatewayError, PermissionError):
    """What was asked may not be done here."""


class NotFoundError(GatewayError, LookupError):
    """There is no such thing, or it is not yours."""


class SessionNotFound(NotFoundError):
    """You have no such session."""


class SessionExpiredError(NotFoundError):
    """The session has ended."""


class ConflictError(GatewayError):
    """It does not fit the present state: name taken, or not possible in this status."""


class RequestInFlight(ConflictError):
    """A request with the same idempotency key is being done; ask again for its answer."""


class SessionPaused(ConflictError):
    """The session is paused; resume it first."""


class QuotaExceeded(GatewayError):
    """There is no more of what is shared out."""


class RateLimitError(GatewayError):
    """Too many requests with this token, or too many wrong tokens from this address."""

    retry_after: float | None = None
    """Seconds after which to try again; None, as the others, if the gateway did not say."""
    limit: int | None = None
    """Requests a minute."""
    remaining: int | None = None
    """Requests that are left."""
    reset: float | None = None
    """Seconds after which all are left again."""


class Unavailable(GatewayError):
    """Not possible at present; the same request may work later."""


class EngineUnavailable(Unavailable):
    """The gateway's machine cannot make sandboxes; the text says why."""


class HostDisconnected(Unavailable):
    """The session's machine or supervisor does not answer."""


class OperationFailed(GatewayError):
    """It was tried and failed."""


class InternalError(OperationFailed):
    """The gateway failed; its log has the details under `request_id`."""


_CLASSES: dict[str, type[GatewayError]] = {
    Code.VALIDATION_ERROR: RequestInvalid,
    Code.UNAUTHORIZED: AuthenticationError,
    Code.FORBIDDEN: ForbiddenError,
    Code.NOT_FOUND: NotFoundError,
    Code.SESSION_NOT_FOUND: SessionNotFound,
    Code.SESSION_EXPIRED: SessionExpiredError,
    Code.SESSION_PAUSED: SessionPaused,
    Code.CONFLICT: ConflictError,
    Code.REQUEST_IN_FLIGHT: RequestInFlight,
    Code.RANGE_NOT_SATISFIABLE: RequestInvalid,
    Code.CONTENT_TOO_LARGE: RequestInvalid,
    Code.QUOTA_EXCEEDED: QuotaExceeded,
    Code.RATE_LIMITED: RateLimitError,
    Code.HOST_DISCONNECTED: HostDisconnected,
    Code.CHECKPOINT_FAILED: OperationFailed,
    Code.ENGINE_UNAVAILABLE: EngineUnavailable,
    Code.UNAVAILABLE: Unavailable,
    Code.OPERATION_FAILED: OperationFailed,
    Code.INTERNAL_ERROR: InternalError,
}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def error_of(
    status: int, problem: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> GatewayError:
    """The error for a problem document (RFC 9457), and the headers that it came with."""
    code = _text(problem.get("code")) or ""
    kind = _CLASSES.get(code, GatewayError)
    error = kind(
        _text(problem.get("detail")) or f"the gateway answered with HTTP status {status}",
        hint=_text(problem.get("hint")),
        status=status,
        code=code or None,
        request_id=_text(problem.get("request_id")),
    )
    if isinstance(error, RateLimitError):
        given = headers or {}
        error.retry_after = _number(given, "retry-after")
        error.limit = _number(given, "ratelimit-limit")
        error.remaining = _number(given, "ratelimit-remaining")
        error.reset = _number(given, "ratelimit-reset")
    return error
