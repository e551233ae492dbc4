"""The description of the interface (`/openapi.json`): what FastAPI cannot know is added here.

Routes name the problems of their own with `problems_of`; those that every request can meet,
who may ask, and the headers of every answer are the same everywhere and written here once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from sandcell_gateway.api_examples import EXAMPLES, PROBLEMS, problem_example
from sandcell_gateway.problems import MEDIA_TYPE
from sandcell_wire.codes import HTTP_STATUS, Code
from sandcell_wire.models import Problem

Document = dict[str, Any]

SESSION = (Code.SESSION_NOT_FOUND,)
"""What can be wrong with a session that is only looked at."""
LIVE_SESSION = (*SESSION, Code.SESSION_EXPIRED, Code.HOST_DISCONNECTED)
"""What can be wrong with a session that is to do something."""
FILE = (*LIVE_SESSION, Code.NOT_FOUND, Code.CONFLICT, Code.FORBIDDEN)
"""What can be wrong with a file of a session."""

OPEN: Document = {"security": []}
"""For operations that need no token: their `openapi_extra`."""

_DESCRIPTION = """\
Sandbox sessions for notebooks and programs. Bodies are JSON, times RFC 3339 in UTC, durations \
seconds, ids UUID4. Errors are problem documents (RFC 9457) whose `code` is stable; any \
operation may answer 500 with one. On the gateway's Unix socket no token is needed.\
"""
_SECURITY: Document = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The gateway's token."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
}
_HEADERS: Document = {
    "X-Request-ID": {
        "description": "Finds the request in the gateway's log.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "`total;dur=` milliseconds in the gateway.",
        "required": True,
        "schema": {"type": "string"},
    },
}
_EXAMPLES = "#/components/examples/"
_SCHEMAS = "#/components/schemas/{model}"
_GENERATED = ("HTTPValidationError", "ValidationError")
"""FastAPI's own errors, which nobody is sent."""


def problems_of(*codes: Code) -> dict[int | str, Document]:
    """The answers with these codes, for the `responses` of a route."""
    found: dict[int | str, Document] = {}
    for code in sorted(set(codes)):
        body = found.setdefault(HTTP_STATUS[code], _problem_response())
        meaning = PROBLEMS[code].meaning
        body["description"] = "; ".join(filter(None, (body["description"], f"`{code}`: {meaning}")))
        body["content"][MEDIA_TYPE]["examples"][code.value] = {"$ref": f"{_EXAMPLES}{code}"}
    return found


def _problem_response() -> Document:
    schema = {"$ref": _SCHEMAS.format(model="Problem")}
    return {"description": "", "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}}}


def schema_of(model: Any) -> Document:
    """The schema of what no route declares as its body or answer, for the `responses` of one."""
    return TypeAdapter[Any](model).json_schema(ref_template=_SCHEMAS)


def operation_id(route: APIRoute) -> str:
    """The name of an operation is that of its function."""
    return route.name


class Api(FastAPI):
    """An application that describes itself completely."""

    def openapi(self) -> Document:
        """The document; made once."""
        if self.openapi_schema is None:
            _complete(super().openapi())
        return cast("Document", self.openapi_schema)


def _complete(document: Document) -> None:
    document["info"]["description"] = _DESCRIPTION
    document["security"] = [{name: []} for name in _SECURITY]
    parts = document["components"]
    parts["securitySchemes"], parts["headers"] = _SECURITY, _HEADERS
    schemas: Document = parts["schemas"]
    for name in _GENERATED:
        schemas.pop(name, None)
    schemas["Problem"] = schema_of(Problem)
    for operation in operations(document):
        _complete_operation(operation)
    _lift_definitions(document, schemas)
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    used = {name for each in operations(document) for name in _problem_names(each)}
    parts["examples"] = {name: {"value": problem_example(Code(name))} for name in used}


def operations(document: Document) -> Iterator[Document]:
    """All operations of a document."""
    for methods in document["paths"].values():
        yield from methods.values()


def _complete_operation(operation: Document) -> None:
    operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
    responses: Document = operation["responses"]
    # FastAPI's 422 is replaced by ours.
    declared = map(Code, _problem_names(operation))
    known = {status: each for status, each in responses.items() if not _is_problem(status)}
    problems = problems_of(*declared, *_common(operation))
    ours = {str(status): problem for status, problem in problems.items()}
    operation["responses"] = {**known, **dict(sorted(ours.items()))}
    for response in operation["responses"].values():
        links = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
        response["headers"] = links | response.get("headers", {})


def _is_problem(status: str) -> bool:
    return status.startswith(("4", "5"))


def _problem_names(operation: Document) -> Iterator[str]:
    for response in operation["responses"].values():
        yield from response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})


def _lift_definitions(part: object, schemas: Document) -> None:
    """Put the definitions that schemas bring along where all others are."""
    if isinstance(part, dict):
        found = cast("Document", part)
        schemas |= found.pop("$defs", {})
        for each in list(found.values()):
            _lift_definitions(each, schemas)


def _common(operation: Document) -> Iterator[Code]:
    """What can be wrong with every request of such a form."""
    yield Code.FORBIDDEN
    if operation.get("security") != []:
        yield from (Code.UNAUTHORIZED, Code.RATE_LIMITED, Code.UNAVAILABLE)
    body = operation.get("requestBody", {}).get("content", {})
    if operation.get("parameters") or body:
        yield Code.VALIDATION_ERROR
    if "application/json" in body:
        yield Code.CONTENT_TOO_LARGE
