"""Imports point one way (DESIGN, "Layout"; docs/architecture.md says it for readers)."""

from __future__ import annotations

import pytest

from tests.architecture.source import PACKAGES, below, is_standard, modules, reached, top

MAY_IMPORT = {
    "sandcell_wire": set[str](),
    "sandcell": {"sandcell_wire"},
    "sandcell_magics": {"sandcell", "sandcell_wire"},
    "sandcell_kernel": {"sandcell_magics", "sandcell", "sandcell_wire"},
    "sandcell_gateway": {"sandcell_wire"},
}
BRIDGES = {("sandcell", "sandcell_magics")}
"""(module, package): the one upward import; it makes `%load_ext sandcell` work."""

WEB = {"fastapi", "starlette", "uvicorn"}
DATABASE = {"sqlalchemy", "alembic", "aiosqlite"}
NOTEBOOK = {"IPython", "ipykernel"}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    wrong = [
        f"{module.place}:{found.line} imports {found.target}"
        for module in below(package)
        for found in module.imports
        if top(found.target) in PACKAGES
        and top(found.target) not in MAY_IMPORT[package] | {package}
        and (module.name, top(found.target)) not in BRIDGES
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("prefix", "forbidden"),
    [
        # One shim runs for each session: it stays small and starts fast.
        ("sandcell_gateway.shim", WEB | DATABASE | NOTEBOOK | {"pydantic", "httpx"}),
        # Histories are read and verified offline, too.
        ("sandcell_gateway.journal", WEB | DATABASE | NOTEBOOK | {"pydantic", "httpx"}),
        # Whoever checks a proof needs no file format.
        ("sandcell_gateway.journal.verify", {"asyncio", "threading", "zmq"}),
        # An exported history is verified without a gateway, and without its parts.
        *(
            (f"sandcell_gateway.proofs.{name}", WEB | DATABASE | NOTEBOOK | {"pydantic", "httpx"})
            for name in ("proof", "check", "archive", "audit", "cli")
        ),
        ("sandcell_gateway.proofs.check", {"asyncio", "threading", "zmq", "tarfile"}),
        ("sandcell_gateway.engines", WEB | DATABASE | NOTEBOOK | {"pydantic", "httpx"}),
        # The server never uses the client's way of speaking.
        ("sandcell_gateway", {"httpx", "IPython"}),
        # The local kernel must be there before a front end loses patience.
        ("sandcell_kernel", WEB | DATABASE | NOTEBOOK),
        ("sandcell", WEB | DATABASE | NOTEBOOK),
        # The kernel uses these two without IPython.
        ("sandcell_magics.commands", {"IPython"}),
        ("sandcell_magics.render", {"IPython"}),
    ],
)
def test_nothing_heavy_can_be_reached(prefix: str, forbidden: set[str]) -> None:
    """Also not through other modules of ours, and not by a late import."""
    # Programs for inside the sandbox are files that are never imported outside.
    start = [m for m in below(prefix) if not m.name.startswith("sandcell_gateway.inside")]
    bridged = {package for _, package in BRIDGES}
    wrong = [
        " -> ".join(chain)
        for name, chain in reached(start).items()
        if top(name) in forbidden and not bridged & {top(step) for step in chain}
    ]
    assert not wrong, "\n".join(wrong)


def test_the_wire_needs_only_pydantic_and_zmq() -> None:
    """And the message path needs no pydantic: only `models` does."""
    foreign = {
        (module.name, top(found.target))
        for module in below("sandcell_wire")
        for found in module.imports
        if not is_standard(found.target) and top(found.target) != "sandcell_wire"
    }
    assert {name for _, name in foreign} <= {"pydantic", "zmq"}
    models = {f"sandcell_wire.{name}" for name in ("models", "commands", "tokens")}
    assert {module for module, name in foreign if name == "pydantic"} <= models


INSIDE = "sandcell_gateway.inside"


def test_programs_inside_the_sandbox_need_the_standard_library_only() -> None:
    """They run with whatever environment the image has."""
    launcher = {"IPython", "ipykernel", "tornado", "zmq", "traitlets"}
    beside = {"agent_requests", "command_streams", "rights"}
    wrong = [
        f"{module.place}:{found.line} imports {found.target}"
        for module in below("sandcell_gateway.inside")
        for found in module.imports
        if not is_standard(found.target)
        and found.target != INSIDE
        and found.target.removeprefix(f"{INSIDE}.").split(".")[0] not in beside
        and not (module.name.endswith(".kernel_launcher") and top(found.target) in launcher)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_import_of_ours_exists() -> None:
    """`from package import name` finds a module or a name of that package."""
    known = modules()
    wrong = [
        f"{module.place}:{found.line} imports {found.target}"
        for module in known.values()
        for found in module.imports
        if top(found.target) in PACKAGES
        and found.target not in known
        and found.target.rpartition(".")[0] not in known
    ]
    assert not wrong, "\n".join(wrong)
