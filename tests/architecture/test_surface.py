"""What others may use is documented, and `__all__` says the truth."""

from __future__ import annotations

import ast
import importlib
from functools import cache

import pytest

from tests.architecture.source import Module, below, modules

PACKAGES_WITH_ALL = ["sandcell"]
"""Packages that people import from; their `__init__` is the public surface."""

PLAIN_BASES = {"object", "Protocol", "NamedTuple", "TypedDict", "Enum", "Generic"}
"""Foreign classes whose methods explain nothing about those of their children."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _public(node: Definition) -> bool:
    return not node.name.startswith("_")


def _definitions(body: list[ast.stmt]) -> list[Definition]:
    return [node for node in body if isinstance(node, Definition)]


@cache
def _classes() -> dict[str, list[ast.ClassDef]]:
    found: dict[str, list[ast.ClassDef]] = {}
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def _is_inherited(owner: ast.ClassDef, name: str) -> bool:
    """Whether a base documents the method: one of ours that has it, or any foreign class."""
    classes = _classes()
    for base in owner.bases:
        full_name = ast.unparse(base).partition("[")[0]
        base_name = full_name.rpartition(".")[2]
        if base_name not in classes:
            return full_name not in PLAIN_BASES
        for ancestor in classes[base_name]:
            if any(node.name == name for node in _definitions(ancestor.body)):
                return True
            if _is_inherited(ancestor, name):
                return True
    return False


def _undocumented(module: Module) -> list[str]:
    wrong: list[str] = []
    if ast.get_docstring(module.tree) is None and module.path.stat().st_size > 0:
        wrong.append(f"{module.place}: the module")
    for node in filter(_public, _definitions(module.tree.body)):
        if ast.get_docstring(node) is None and not _is_overload(node):
            wrong.append(f"{module.place}:{node.lineno} {node.name}")
        if isinstance(node, ast.ClassDef):
            wrong += [
                f"{module.place}:{method.lineno} {node.name}.{method.name}"
                for method in filter(_public, _definitions(node.body))
                if ast.get_docstring(method) is None
                and not _is_overload(method)
                and not _is_inherited(node, method.name)
            ]
    return wrong


def _is_overload(node: Definition) -> bool:
    names = {ast.unparse(decorator) for decorator in node.decorator_list}
    return any(name.endswith(("overload", ".setter")) for name in names)


@pytest.mark.parametrize("name", sorted(modules()))
def test_public_things_have_docstrings(name: str) -> None:
    wrong = _undocumented(modules()[name])
    assert not wrong, "without docstring:\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", PACKAGES_WITH_ALL)
def test_all_is_the_public_surface(name: str) -> None:
    """Sorted, without repeats, all of it there, and nothing public left out."""
    module = importlib.import_module(name)
    exported: list[str] = module.__all__
    assert len(exported) == len(set(exported)), "a name is listed twice"
    for export in exported:
        assert hasattr(module, export), f"{name}.__all__ lists {export}, which is not there"
    (init,) = (found for found in below(name) if found.name == name)
    brought = {
        alias.asname or alias.name
        for node in init.tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    defined = {node.name for node in _definitions(init.tree.body)}
    public = {name for name in brought | defined if not name.startswith("_")}
    assert public <= set(exported), f"not in __all__: {sorted(public - set(exported))}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_all_names_exist(name: str) -> None:
    """In every module that has an `__all__`, each of its names is defined or imported there."""
    tree = modules()[name].tree
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    bound |= {node.name for node in _definitions(tree.body)}
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    bound |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    has_getattr = "__getattr__" in bound  # late imports: the surface test asks the real module
    for listed in lists:
        names = set(ast.literal_eval(listed))
        assert has_getattr or names <= bound, f"not there: {sorted(names - bound)}"
