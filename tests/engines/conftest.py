"""Sandboxes that are ended after each test."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from sandcell_gateway.engines import registry
from sandcell_gateway.engines.base import SandboxSpec
from sandcell_gateway.engines.bubblewrap import binaries
from tests.engines.places import ENGINES, Running, make_spec, start
from tests.support.processes import end_all

Start = Callable[..., Awaitable[Running]]


@functools.cache
def _why_not(name: str) -> str:
    """Why a test is skipped. An engine that fails where it could work is a failure."""
    probe = registry.load(name).probe()
    if probe.works:
        return ""
    reason = f"{name}: {probe.reason}. {probe.hint}"
    assert name != "bubblewrap" or not _has_namespaces(), reason
    assert name != "process" or os.geteuid() == 0, reason
    return reason


def _has_namespaces() -> bool:
    """Whether bwrap by itself can make an empty sandbox here."""
    spaces = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    tries = ([str(binary), *spaces, "true"] for binary in binaries())
    return any(subprocess.run(argv, check=False).returncode == 0 for argv in tries)


@pytest.fixture
def base(run_directory: Path) -> Iterator[Path]:
    """A short directory; nothing of it may run when the test is over."""
    path = Path(tempfile.mkdtemp(prefix="", dir=run_directory))
    path.chmod(0o755)
    yield path
    left = end_all(path, patience=5)
    shutil.rmtree(path, ignore_errors=True)
    assert not left, "left running:\n" + "\n".join(left)


@pytest.fixture
def spec(base: Path) -> SandboxSpec:
    return make_spec(base, {"SESSION_VARIABLE": "its value"})


@pytest.fixture
async def starting(spec: SandboxSpec) -> AsyncIterator[Start]:
    """`await starting("bubblewrap")` makes a sandbox; all are ended after the test."""
    made: list[Running] = []

    async def begin(name: str, **changes: object) -> Running:
        if reason := _why_not(name):
            pytest.skip(reason)
        made.append(await start(name, changes.pop("spec", spec), **changes))  # type: ignore[arg-type]
        return made[-1]

    yield begin
    for running in reversed(made):
        await running.aclose()


def _param(name: str) -> object:
    return pytest.param(name, marks=[pytest.mark.not_root] if name == "process" else [])


@pytest.fixture(params=map(_param, ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    name: str = request.param
    if reason := _why_not(name):
        pytest.skip(reason)
    return name


@pytest.fixture
async def running(engine: str, starting: Start) -> Running:
    """A sandbox of each engine in turn."""
    return await starting(engine)
