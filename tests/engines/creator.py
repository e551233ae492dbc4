"""Makes a sandbox and says so, for tests that kill the maker: creator.py ENGINE BASE WHEN.

WHEN is `reported` (die while the state is being stored) or `running` (start a
process in it, print the state, wait to be killed).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sandcell_gateway.engines import registry
from tests.engines.places import make_spec, start


def die(state: dict[str, Any]) -> None:
    """As if the machine had stopped us between the report and the next step."""
    print(json.dumps(state), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def main(engine: str, base: Path, when: str) -> None:
    """Until killed."""
    spec = make_spec(base)
    if when == "reported":
        await registry.load(engine).create(spec, die)
        return
    running = await start(engine, spec)
    pid = await running.start("ready()\nimport time; time.sleep(600)")
    print(json.dumps({"state": running.sandbox.state, "pid": pid, "uid": spec.uid}), flush=True)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
