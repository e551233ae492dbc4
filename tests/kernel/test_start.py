"""The local kernel starts without what it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("IPython", "ipykernel", "fastapi", "starlette", "uvicorn", "sqlalchemy", "jupyter_client")


def imported(program: str) -> set[str]:
    """Top-level modules that a program imports, by `-X importtime`."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import sandcell_kernel.app", id="to bind the sockets"),
        pytest.param("import sandcell_kernel.app, sandcell_kernel.link", id="for the session"),
    ],
)
def test_the_local_kernel_imports_neither_ipython_nor_the_web_framework(program: str) -> None:
    found = imported(program)
    assert "zmq" in found  # the measurement works
    assert not found & set(HEAVY)


def test_sockets_are_bound_before_the_sdk_is_imported() -> None:
    found = imported("import sandcell_kernel.app")
    assert not found & {"httpx", "pydantic", "websockets", "sandcell"}
