"""The interface's description: complete, true to the models, and as it is committed."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from typing import Any

import pytest

from sandcell_gateway.api_examples import EXAMPLES, PROBLEMS, problem_example
from sandcell_gateway.openapi import operations
from sandcell_gateway.problems import MEDIA_TYPE
from sandcell_wire import commands, models, tokens
from sandcell_wire.codes import Code
from sandcell_wire.models import Problem
from tests.gateway.support import ROOT, Gateway


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("openapi", ROOT / "scripts" / "openapi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def document(gateway: Gateway) -> Any:
    return gateway.app.openapi()


def test_the_committed_one_is_what_the_code_says() -> None:
    expected = script().document()
    assert (ROOT / "docs" / "openapi.json").read_text() == expected, "run scripts/openapi"


def test_operations_have_names_that_say_what_they_do(document: Any) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert len(names) == len(set(names))
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []
    for operation in operations(document):
        assert operation["summary"]
        assert operation["description"]


def test_errors_are_problem_documents(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert "Problem" in schemas
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)
    for operation in operations(document):
        errors = {key: each for key, each in operation["responses"].items() if key >= "400"}
        assert "403" in errors
        assert ("401" in errors) == (operation["operationId"] != "get_health")
        for status, response in errors.items():
            content = response["content"][MEDIA_TYPE]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code in content["examples"]:
                example = document["components"]["examples"][code]["value"]
                assert (example["code"], str(example["status"])) == (code, status)


def test_every_body_and_answer_has_an_example(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for operation in operations(document):
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in contents:
            schema = content.get("content", {}).get("application/json", {}).get("schema", {})
            for name in re.findall(r"#/components/schemas/(\w+)", str(schema)):
                assert schemas[name].get("examples"), f"{name} of {operation['operationId']}"


def owns(module: ModuleType, name: str) -> bool:
    """Whether a model was written there."""
    return getattr(vars(module).get(name), "__module__", "") == module.__name__


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_of_their_models(name: str) -> None:
    """Complete, and nothing else than the model writes."""
    (kind,) = (vars(module)[name] for module in (models, commands, tokens) if owns(module, name))
    model = kind.model_validate(EXAMPLES[name])
    written = model.model_dump(mode="json", exclude_unset=True)
    assert written == EXAMPLES[name]
    if isinstance(model, models.Answer):
        assert set(EXAMPLES[name]) >= set(type(model).model_fields)


@pytest.mark.parametrize("code", Code)
def test_every_code_is_told_of(code: Code) -> None:
    assert PROBLEMS[code].meaning
    assert Problem.model_validate(problem_example(code)).code is code


def test_references_lead_somewhere(document: Any) -> None:
    for place in set(re.findall(r"'#/([\w/-]+)'", str(document))):
        found = document
        for part in place.split("/"):
            found = found[part]


async def test_it_says_who_may_ask(document: Any) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    assert document["security"] == [{name: []} for name in schemes]
