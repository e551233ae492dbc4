"""Python in the documentation runs as it stands there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.docs.documents import Block, blocks

EXAMPLE_SECONDS = 90
"""How long one example may take, the start of its gateway included."""

EXAMPLES = blocks("python")


def _run(block: Block, environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        env=environ,
        capture_output=True,
        text=True,
        timeout=EXAMPLE_SECONDS,
    )
    assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.place)
def test_it_is_python(block: Block) -> None:
    compile(block.text, block.place, "exec")


@pytest.mark.parametrize(
    "block", [b for b in EXAMPLES if b.mark == "run"], ids=lambda block: block.place
)
def test_it_runs(block: Block, sandcell_environ: dict[str, str]) -> None:
    _run(block, sandcell_environ)


@pytest.mark.parametrize(
    "block", [b for b in EXAMPLES if b.mark == "gateway"], ids=lambda block: block.place
)
def test_it_runs_with_a_gateway(block: Block, sandcell_environ: dict[str, str]) -> None:
    """The embedded gateway starts on demand, as for a reader who tries the example."""
    _run(block, sandcell_environ)


def test_there_are_examples_of_each_kind() -> None:
    assert {block.mark for block in EXAMPLES} >= {"", "run", "gateway"}
