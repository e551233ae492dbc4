"""Python in the documentation runs as it stands there."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from sandcell_gateway.webhooks.signing import Signer
from tests.docs.documents import Block, blocks
from tests.support.receiver import SECRET

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


def test_the_example_that_reads_webhooks_takes_ours_and_nothing_else() -> None:
    (block,) = (block for block in EXAMPLES if "def read_webhook" in block.text)
    found: dict[str, Any] = {}
    exec(compile(block.text, block.place, "exec"), found)
    read, body, moment = found["read_webhook"], b'{"type":"job.ended"}', int(time.time())
    headers = Signer.parse(SECRET).headers("msg_1", moment, body)
    assert read(SECRET, headers, body) == {"type": "job.ended"}
    both = Signer.parse(f"whsec_{'k' * 32} {SECRET}").headers("msg_1", moment, body)
    assert read(SECRET, both, body) == {"type": "job.ended"}
    with pytest.raises(ValueError, match="not signed"):
        read(SECRET, headers, body + b" ")
    with pytest.raises(ValueError, match="not signed"):
        read(SECRET, headers | {"webhook-id": "msg_2"}, body)
    with pytest.raises(ValueError, match="too old"):
        read(SECRET, Signer.parse(SECRET).headers("msg_1", moment - 301, body), body)


def test_there_are_examples_of_each_kind() -> None:
    assert {block.mark for block in EXAMPLES} >= {"", "run", "gateway"}
