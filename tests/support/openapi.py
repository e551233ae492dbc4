"""Requests for every operation of an OpenAPI document: valid, so that nothing else refuses them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
WORDS = (
    "word",
    "team=birds",
    "a-word-1",
    "https://word.example/x",
    "0" * 32,
    str(uuid.UUID(int=1)),
    "1",
    "GET",
)
"""Texts of which one fits every pattern."""


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    """As the document has it."""
    url: str
    """With its parameters filled in."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keywords for httpx: the body."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def calls(document: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[Call]:
    """One for each operation; `known` are values of parameters by name."""
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                yield _call(document, known, method, path, operations[method])


def _call(
    document: Mapping[str, Any],
    known: Mapping[str, str],
    method: str,
    path: str,
    operation: Mapping[str, Any],
) -> Call:
    url, query = path, {}
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        value = known.get(name, sample(document, parameter["schema"]))
        if parameter["in"] == "path":
            url = url.replace(f"{{{name}}}", str(value))
        elif parameter["in"] == "query" and parameter.get("required"):
            query[name] = value
    for name in re.findall(r"{(\w+)}", url):  # those that a dependency reads
        url = url.replace(f"{{{name}}}", known.get(name, WORDS[0]))
    options = _body(document, operation.get("requestBody", {}).get("content", {}))
    return Call(method.upper(), path, url, options | ({"params": query} if query else {}))


def _body(document: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    if "application/json" in content:
        return {"json": sample(document, content["application/json"].get("schema", {}))}
    if "multipart/form-data" in content:
        return {"files": {"file": ("word.txt", b"content")}}
    return {"content": b"content"} if content else {}


def sample(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """The simplest value that a schema allows."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return sample(document, document["components"]["schemas"][name])
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return sample(document, schema[key][0])
    kind = schema.get("type", "object")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: sample(document, properties[name]) for name in schema.get("required", ())}
    if kind == "array":
        return [sample(document, schema.get("items", {}))] * schema.get("minItems", 0)
    return _scalar(schema, kind)


def _scalar(schema: Mapping[str, Any], kind: str) -> Any:
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    if kind == "boolean":
        return False
    if schema.get("format") == "uuid":
        return str(uuid.UUID(int=1))
    pattern = schema.get("pattern", "")
    return next(word for word in WORDS if re.search(pattern, word))
