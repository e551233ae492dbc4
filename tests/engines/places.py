"""Real sandboxes for tests: a place with everything a spec names, and what runs in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sandcell_gateway.engines import registry
from sandcell_gateway.engines.agent_client import AgentClient
from sandcell_gateway.engines.base import Engine, Exit, Limits, Sandbox, SandboxSpec
from sandcell_gateway.environment import make_environment
from sandcell_gateway.identity import pick_uid
from sandcell_gateway.images import Image
from tests.support.processes import processes_of

ENGINES = ("bubblewrap", "process")
LIMITS = Limits(processes=64, open_files=256, file_bytes=8 << 20, tmp_bytes=4 << 20)


def make_spec(base: Path, env: Mapping[str, str] | None = None) -> SandboxSpec:
    """Directories below `base` as the gateway makes them."""
    uid = pick_uid(())
    for name in ("workspace", "k", "engine"):
        (base / name).mkdir(mode=0o700, exist_ok=True)
        if uid is not None and name != "engine":
            os.chown(base / name, uid, uid)
    image = Image.here()
    make_environment(image, base / "env", uid=uid)
    return SandboxSpec(
        session_id=base.name,
        image=image,
        workspace=base / "workspace",
        environment=base / "env",
        sockets=base / "k",
        state=base / "engine",
        env=dict(env or {}),
        uid=uid,
        limits=LIMITS,
    )


@dataclass
class Ran:
    """What a program in a sandbox did."""

    exit: Exit
    output: str


@dataclass
class Running:
    """A sandbox and the stream to its agent."""

    engine: Engine
    spec: SandboxSpec
    sandbox: Sandbox
    agent: AgentClient
    states: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """All that was reported while it was made."""
    _runs: int = 0

    async def run(self, code: str, *arguments: str, argv: Iterable[str] | None = None) -> Ran:
        """Run Python code, or a command, to its end."""
        self._runs += 1
        inside, name = self.sandbox.inside, f".out-{self._runs}"
        words = list(argv or (inside.python, "-c", code, *arguments))
        log = f"{inside.workspace}/{name}"
        pid = await self.agent.spawn(words, self.sandbox.environ, inside.workspace, log=log)
        ended = await self.agent.wait_exit(pid)
        await self.agent.reap(pid)
        return Ran(ended, (self.spec.workspace / name).read_text())

    async def start(self, code: str, *, ready: bool = True) -> int:
        """Start Python code; with `ready`, until it calls `ready()`."""
        head = "import os\ndef ready(): os.write(int(os.environ['SANDCELL_READY_FD']), b'r')\n"
        argv = [self.sandbox.inside.python, "-c", head + code]
        environ, cwd = self.sandbox.environ, self.sandbox.inside.workspace
        pid = await self.agent.spawn(argv, environ, cwd, ready=ready)
        if ready:
            await self.agent.wait_ready(pid)
        return pid

    def left(self) -> list[str]:
        """Processes of this sandbox on the host."""
        return [str(process) for process in processes_of(self.spec.state.parent)]

    def log(self) -> str:
        """The sandbox's log."""
        return (self.spec.state / "sandbox.log").read_text("utf-8", "replace")

    async def aclose(self) -> None:
        """End it."""
        await self.agent.aclose()
        await self.sandbox.kill()
        await self.sandbox.aclose()


async def start(name: str, spec: SandboxSpec, **changes: Any) -> Running:
    """Make a sandbox with that engine."""
    engine, states = registry.load(name), list[dict[str, Any]]()
    spec = replace(spec, **changes)
    sandbox = await engine.create(spec, lambda state: states.append(json.loads(json.dumps(state))))
    try:
        agent = await AgentClient.open(sandbox)
    except BaseException:
        await sandbox.kill()
        await sandbox.aclose()
        raise
    return Running(engine, spec, sandbox, agent, states)
