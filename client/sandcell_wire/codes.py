"""Error codes that cross the wire, with the HTTP status each is sent with.

Codes are stable; titles and details may change. Errors are RFC 9457 problem
documents (`models.Problem`).
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """What went wrong, for programs."""

    VALIDATION_ERROR = "validation_error"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    SESSION_NOT_FOUND = "session_not_found"
    SESSION_EXPIRED = "session_expired"
    SESSION_PAUSED = "session_paused"
    CONFLICT = "conflict"
    REQUEST_IN_FLIGHT = "request_in_flight"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    CONTENT_TOO_LARGE = "content_too_large"
    QUOTA_EXCEEDED = "quota_exceeded"
    RATE_LIMITED = "rate_limited"
    HOST_DISCONNECTED = "host_disconnected"
    CHECKPOINT_FAILED = "checkpoint_failed"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    UNAVAILABLE = "unavailable"
    OPERATION_FAILED = "operation_failed"
    INTERNAL_ERROR = "internal_error"


HTTP_STATUS: dict[Code, int] = {
    Code.VALIDATION_ERROR: 422,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.SESSION_NOT_FOUND: 404,
    Code.SESSION_EXPIRED: 410,
    Code.SESSION_PAUSED: 409,
    Code.CONFLICT: 409,
    Code.REQUEST_IN_FLIGHT: 409,
    Code.RANGE_NOT_SATISFIABLE: 416,
    Code.CONTENT_TOO_LARGE: 413,
    Code.QUOTA_EXCEEDED: 403,
    Code.RATE_LIMITED: 429,
    Code.HOST_DISCONNECTED: 503,
    Code.CHECKPOINT_FAILED: 500,
    Code.ENGINE_UNAVAILABLE: 503,
    Code.UNAVAILABLE: 503,
    Code.OPERATION_FAILED: 500,
    Code.INTERNAL_ERROR: 500,
}
