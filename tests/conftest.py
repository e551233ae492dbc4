"""Fixtures for all tests: users with homes of their own, and nothing left running."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.home import Home, make_home, make_run_directory
from tests.support.processes import end_all


class MakeHome(Protocol):
    """Makes a home for fixtures that live longer than one test."""

    def __call__(self) -> AbstractContextManager[Home]: ...


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """The directory of all homes; when the run ends, no process may belong to it any more."""
    run = make_run_directory()
    yield run
    left = end_all(run)
    shutil.rmtree(run, ignore_errors=True)
    assert not left, "the test run left these processes running:\n  " + "\n  ".join(left)


@pytest.fixture(scope="session")
def home_factory(run_directory: Path) -> MakeHome:
    """`with home_factory() as home:` for module and session fixtures; leaves os.environ alone."""
    return partial(make_home, run_directory)


@pytest.fixture
def home(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A user's home for one test, also in this process's environment.

    The test fails if a process of it is still running 15 seconds after its end.
    """
    with make_home(run_directory) as made:
        for name in set(os.environ) - set(made.environ):
            monkeypatch.delenv(name)
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def sandcell_environ(home: Home) -> dict[str, str]:
    """The complete environment of `home`, to change and hand to a subprocess."""
    return dict(home.environ)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this user cannot run; the slow ones begin first.

    They mostly wait. At the end one processor would wait with them.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    root = os.geteuid() == 0
    for item in items:
        if item.get_closest_marker("root") and not root:
            item.add_marker(pytest.mark.skip(reason="needs to run as root"))
        if item.get_closest_marker("not_root") and root:
            item.add_marker(pytest.mark.skip(reason="needs to run as an ordinary user"))
        if item.get_closest_marker("linux") and not Path("/proc/self/ns").is_dir():
            item.add_marker(pytest.mark.skip(reason="needs Linux namespaces"))
