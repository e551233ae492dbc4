"""The source tree as data: modules, what they import, and what they define."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "sandcell_wire": ROOT / "client" / "sandcell_wire",
    "sandcell": ROOT / "client" / "sandcell",
    "sandcell_magics": ROOT / "magics" / "sandcell_magics",
    "sandcell_kernel": ROOT / "kernel" / "sandcell_kernel",
    "sandcell_gateway": ROOT / "gateway" / "sandcell_gateway",
}
"""Import name → folder."""


@dataclass(frozen=True)
class Import:
    """One imported name, wherever in the file it is imported."""

    target: str
    """Absolute dotted name; for `from a import b` both `a` and `a.b` are listed."""
    line: int
    checking: bool
    """Only for type checkers, under `if TYPE_CHECKING`."""


@dataclass(frozen=True)
class Module:
    """One file of the product."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.path.read_text(), str(self.path))

    @cached_property
    def imports(self) -> list[Import]:
        """Everything imported, also within functions and by `import_module("literal")`."""
        checking = {
            id(inner)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in ast.walk(node)
        }
        return [
            Import(target, node.lineno, id(node) in checking)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
            for target in _targets(node)
        ]

    @property
    def place(self) -> str:
        """The path from the repository's root, for messages."""
        return str(self.path.relative_to(ROOT))


def _targets(node: ast.Import | ast.ImportFrom | ast.Call) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports are not used here"
        assert node.module is not None
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif ast.unparse(node.func).endswith(("import_module", "__import__")) and node.args:
        match node.args[0]:
            case ast.Constant(value=str(name)):
                yield name
            case _:
                pass


@cache
def modules() -> dict[str, Module]:
    """All modules of the five packages by their dotted names."""
    found: dict[str, Module] = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            found[name] = Module(name, path)
    return found


def below(prefix: str) -> list[Module]:
    """The module `prefix` and everything in it."""
    return [m for m in modules().values() if m.name == prefix or m.name.startswith(prefix + ".")]


def top(name: str) -> str:
    """The first part of a dotted name."""
    return name.partition(".")[0]


def is_standard(name: str) -> bool:
    """Whether the standard library provides it."""
    return top(name) in sys.stdlib_module_names


def reached(start: list[Module]) -> dict[str, list[str]]:
    """Every dotted name that `start` may import, directly or through our modules.

    The value is the chain of our modules that leads there. Importing a module
    also runs the packages it lies in.
    """
    known = modules()
    chains: dict[str, list[str]] = {module.name: [module.name] for module in start}
    todo = [module.name for module in start]
    while todo:
        name = todo.pop()
        if name not in known:
            continue
        targets = [found.target for found in known[name].imports if not found.checking]
        for target in (*targets, *_parents(name)):
            for part in (target, *_parents(target)):
                if part not in chains:
                    chains[part] = [*chains[name], part]
                    todo.append(part)
    return chains


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]
