"""What can go wrong in the gateway, in words that are safe for the user.

    GatewayError
    ├── Unauthorized            no valid credential
    ├── Refused                 the request's Host, Origin or peer is not welcome
    ├── BadRequest              a value that no schema catches
    ├── SessionNotFound         unknown, or another owner's
    ├── SessionEnded            final: nothing more can be done with it
    ├── NameTaken               another live session of the owner has the name
    ├── NotPossible             the session's status does not allow it now
    ├── EngineUnavailable       no sandbox can be made on this machine
    ├── OutOfIdentities         every uid set aside for sessions is in use
    ├── ShimUnreachable         the session's shim does not answer now
    └── ShimRefused             the shim answered with an error

Only this family crosses the network with its text; `problems` maps it to codes.
"""

from __future__ import annotations

from sandcell_wire.codes import Code


class GatewayError(Exception):
    """Base of all errors whose text is written for the user."""

    code = Code.OPERATION_FAILED

    def __init__(self, detail: str, hint: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


class Unauthorized(GatewayError):
    """No credential, or one that is not known here."""

    code = Code.UNAUTHORIZED


class Refused(GatewayError):
    """The request comes from a place that may not talk to this gateway."""

    code = Code.FORBIDDEN


class BadRequest(GatewayError):
    """A value that the request's schema can not catch."""

    code = Code.VALIDATION_ERROR


class SessionNotFound(GatewayError):
    """No session of this owner has the id. Another owner's looks the same."""

    code = Code.SESSION_NOT_FOUND

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id}", "list yours with `sandcell sessions`")
        self.session_id = session_id


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


class ShimUnreachable(GatewayError):
    """The session's shim does not answer at the moment."""

    code = Code.HOST_DISCONNECTED


class ShimRefused(GatewayError):
    """The shim answered a request with an error; carries its code."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
