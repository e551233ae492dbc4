"""What can go wrong in the gateway, in words that are safe for the user.

    GatewayError
    ├── Unauthorized            no valid credential
    │   └── TokenEnded          it was one, and has expired or was revoked
    ├── MissingScope            the token may not do this
    ├── RateLimited             too many requests
    ├── KeysUnavailable         nobody says whether a JWT is genuine
    ├── NotTheirs               tokens of other owners are the operator's business
    ├── TokenNotFound           unknown, or another owner's
    ├── TooManyTokens           the owner has so many that no more are made
    ├── Refused                 the request's Host, Origin or peer is not welcome
    ├── BadRequest              a value that no schema catches
    ├── RangeNotSatisfiable     the file is shorter
    ├── BodyTooLarge            the request's body is longer than is taken
    ├── SessionNotFound         unknown, or another owner's
    ├── SessionEnded            final: nothing more can be done with it
    ├── KeyReused               an `Idempotency-Key` came with another body
    ├── RequestInFlight         an `Idempotency-Key` came again before the answer
    ├── NameTaken               another live session of the owner has the name
    ├── NotPossible             the session's status does not allow it now
    ├── EngineUnavailable       no sandbox can be made on this machine
    ├── OutOfIdentities         every uid set aside for sessions is in use
    ├── TooManyWebhooks         the session has so many that are not delivered
    ├── ShimUnreachable         the session's shim does not answer now
    │   └── ShimLost            the line to it ended
    └── ShimRefused             the shim answered with an error

Only this family crosses the network with its text; `problems` maps it to codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from sandcell_gateway.access.buckets import BucketState
from sandcell_wire.codes import Code
from sandcell_wire.scopes import Scope, words


class GatewayError(Exception):
    """Base of all errors whose text is written for the user."""

    code = Code.OPERATION_FAILED

    def __init__(self, detail: str, hint: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    @property
    def headers(self) -> Mapping[str, str]:
        """What an HTTP answer says of it besides."""
        return {}


class Unauthorized(GatewayError):
    """No credential, or one that is not known here."""

    code = Code.UNAUTHORIZED

    @property
    def headers(self) -> Mapping[str, str]:
        """The scheme that is expected (RFC 6750, section 3)."""
        return {"WWW-Authenticate": "Bearer"}


class TokenEnded(Unauthorized):
    """The token was valid, and is not any more."""

    def __init__(self, why: str) -> None:
        super().__init__(why, "get another token, and set SANDCELL_TOKEN to it")


class MissingScope(GatewayError):
    """The token is valid, and may not do this."""

    code = Code.FORBIDDEN

    def __init__(self, needed: Scope, held: Iterable[Scope]) -> None:
        super().__init__(
            f"this needs a token with the scope {needed.value}, and yours has: {words(held)}",
            f"make one with `sandcell token create NAME --scope {needed.value}`, or ask whoever "
            "runs the gateway for one",
        )
        self.needed = needed


class RateLimited(GatewayError):
    """Too many requests with one token, or too many bad tokens from one address."""

    code = Code.RATE_LIMITED

    def __init__(self, what: str, state: BucketState) -> None:
        super().__init__(
            f"at most {state.limit} {what} a minute are answered",
            f"try again in {math.ceil(state.retry_after)} seconds",
        )
        self.state = state

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer says of the limit, in whole requests and seconds."""
        return {
            "RateLimit-Limit": str(self.state.limit),
            "RateLimit-Remaining": str(self.state.remaining),
            "RateLimit-Reset": str(math.ceil(self.state.reset)),
            "Retry-After": str(math.ceil(self.state.retry_after)),
        }


class KeysUnavailable(GatewayError):
    """The server of the keys that JWTs are checked with does not answer."""

    code = Code.UNAVAILABLE


class NotTheirs(GatewayError):
    """Only who runs the gateway makes tokens for others."""

    code = Code.FORBIDDEN

    def __init__(self, owner: str, own: str) -> None:
        super().__init__(
            f"a token of {own} cannot make one of {owner}",
            "leave `owner` out, or ask with the gateway's own token or over its Unix socket",
        )


class TokenNotFound(GatewayError):
    """No token that the caller may manage has the id."""

    code = Code.NOT_FOUND

    def __init__(self, token_id: str) -> None:
        super().__init__(f"there is no token {token_id}", "list yours with `sandcell token list`")
        self.token_id = token_id


class TooManyTokens(GatewayError):
    """The owner has so many valid tokens that no more are made."""

    code = Code.QUOTA_EXCEEDED

    def __init__(self, owner: str, most: int) -> None:
        super().__init__(
            f"{owner} has {most} valid tokens, which is the most",
            "revoke some with `sandcell token revoke`",
        )


class Refused(GatewayError):
    """The request comes from a place that may not talk to this gateway."""

    code = Code.FORBIDDEN


class BadRequest(GatewayError):
    """A value that the request's schema can not catch."""

    code = Code.VALIDATION_ERROR


class RangeNotSatisfiable(GatewayError):
    """A `Range` that the file does not have."""

    code = Code.RANGE_NOT_SATISFIABLE

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes", "ask for bytes that it has")


class BodyTooLarge(GatewayError):
    """The request's body is longer than is taken."""

    code = Code.CONTENT_TOO_LARGE

    def __init__(self, most: int) -> None:
        super().__init__(f"a request's body has at most {most} bytes", "send less at once")


class KeyReused(GatewayError):
    """The `Idempotency-Key` came before, with another body."""

    code = Code.VALIDATION_ERROR

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was used for another request",
            "give each request a key of its own, and send it again unchanged",
        )


class RequestInFlight(GatewayError):
    """The first request with this `Idempotency-Key` has not been answered yet."""

    code = Code.REQUEST_IN_FLIGHT

    def __init__(self) -> None:
        super().__init__("a request with this Idempotency-Key is being done", "ask again")


class SessionNotFound(GatewayError):
    """No session of this owner has the id. Another owner's looks the same."""

    code = Code.SESSION_NOT_FOUND

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id}", "list yours with `sandcell sessions`")
        self.session_id = session_id


class ExecutionNotFound(GatewayError):
    """The session's history has no execution with the id, or no longer."""

    code = Code.NOT_FOUND

    def __init__(self, execution_id: str) -> None:
        super().__init__(
            f"there is no execution {execution_id}", "list them with GET /v1/sessions/{id}/history"
        )
        self.execution_id = execution_id


class SessionEnded(GatewayError):
    """The session is final."""

    code = Code.SESSION_EXPIRED

    def __init__(self, session_id: str, status: str, reason: str | None) -> None:
        why = f": {reason}" if reason else ""
        super().__init__(f"session {session_id} is {status}{why}", "create a new session")
        self.session_id = session_id


class NameTaken(GatewayError):
    """Another live session of this owner has the name."""

    code = Code.CONFLICT

    def __init__(self, name: str) -> None:
        super().__init__(
            f"you already have a live session named {name!r}",
            "attach to it, close it, or choose another name",
        )
        self.name = name


class NotPossible(GatewayError):
    """The session's status does not allow this."""

    code = Code.CONFLICT


class EngineUnavailable(GatewayError):
    """No sandbox can be made on this machine; says why and what to do."""

    code = Code.ENGINE_UNAVAILABLE


class OutOfIdentities(GatewayError):
    """Every uid set aside for sessions belongs to a live one."""

    code = Code.QUOTA_EXCEEDED


class TooManyWebhooks(GatewayError):
    """So many of the session's webhooks are not delivered that no more are taken."""

    code = Code.QUOTA_EXCEEDED

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} webhooks of this session are not delivered yet",
            "wait until some are, or leave `webhook` out",
        )


class ShimUnreachable(GatewayError):
    """The session's shim does not answer at the moment."""

    code = Code.HOST_DISCONNECTED


class ShimLost(ShimUnreachable):
    """The line to the session's shim ended; the next shim is perhaps on its way."""

    def __init__(self) -> None:
        super().__init__("the line to the session's supervisor ended", "try again")


class ShimRefused(GatewayError):
    """The shim answered a request with an error; carries its code."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
