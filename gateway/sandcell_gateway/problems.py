"""Errors on the wire: which exception becomes which RFC 9457 problem document.

The table is consulted along the exception's MRO, so the rest of the gateway knows
no HTTP status. What is not in it becomes `internal_error` with the request's id,
its text only in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import (
    RequestValidationError,
    ValidationException,
    WebSocketRequestValidationError,
)
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from sandcell_gateway.errors import GatewayError
from sandcell_wire.codes import HTTP_STATUS, Code
from sandcell_wire.models import Problem
from sandcell_wire.states import IllegalTransition
from sandcell_wire.words import reason

MEDIA_TYPE = "application/problem+json"
_log = structlog.get_logger(__name__)

_TITLES: dict[Code, str] = {code: code.value.replace("_", " ").capitalize() for code in Code}


def _make(
    code: Code, detail: str, *, hint: str | None = None, status: int | None = None, **more: Any
) -> Problem:
    return Problem(
        title=_TITLES[code],
        status=status or HTTP_STATUS[code],
        detail=detail,
        code=code,
        hint=hint,
        **more,
    )


def _gateway(error: GatewayError) -> Problem:
    return _make(error.code, error.detail, hint=error.hint)


def _transition(error: IllegalTransition) -> Problem:
    return _make(Code.CONFLICT, str(error))


def _validation(error: ValidationException) -> Problem:
    # Without `input`: it may hold the environment of a session.
    items = [
        {"place": [str(part) for part in item["loc"]], "reason": reason(item)}
        for item in error.errors()
    ]
    first = items[0] if items else {"place": ["body"], "reason": "not valid"}
    detail = f"{'.'.join(first['place'])}: {first['reason']}"
    if len(items) > 1:
        detail += f" (and {len(items) - 1} more)"
    return _make(Code.VALIDATION_ERROR, detail, errors=jsonable_encoder(items))


def _http(error: HTTPException) -> Problem:
    if error.status_code == 404:
        return _make(Code.NOT_FOUND, "there is nothing at this path", hint="see /openapi.json")
    if isinstance(error.__cause__, GatewayError):
        return _gateway(error.__cause__)  # raised while FastAPI read the body
    if error.status_code == 400:
        # Not UTF-8, nested too deeply, or a number with too many digits: the body is not right.
        return _make(Code.VALIDATION_ERROR, "body: it cannot be read as JSON")
    return _make(Code.VALIDATION_ERROR, str(error.detail), status=error.status_code)


TABLE: dict[type[Exception], Callable[[Any], Problem]] = {
    GatewayError: _gateway,
    IllegalTransition: _transition,
    RequestValidationError: _validation,
    WebSocketRequestValidationError: _validation,
    HTTPException: _http,
}


def method_problem(detail: str, request_id: str) -> Problem:
    """The document for a method that a path does not offer."""
    return _make(Code.NOT_FOUND, detail, status=405, request_id=request_id)


def problem_of(error: BaseException, request_id: str) -> Problem:
    """The document for `error`; logs what is not in the table."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind](error).model_copy(update={"request_id": request_id})
    _log.error("internal error", request_id=request_id, exc_info=error)
    return _make(
        Code.INTERNAL_ERROR,
        "the gateway failed; its log has the details under the request id",
        hint=f"report it with the request id {request_id}",
        request_id=request_id,
    )


def answer_of(error: BaseException, request_id: str) -> Response:
    """The document for `error` as an HTTP answer."""
    headers = dict(error.headers) if isinstance(error, GatewayError) else {}
    return response_of(problem_of(error, request_id), headers)


def response_of(problem: Problem, headers: Mapping[str, str]) -> Response:
    """A document as an HTTP answer, with more headers."""
    return JSONResponse(
        problem.model_dump(mode="json", exclude_none=True),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )
