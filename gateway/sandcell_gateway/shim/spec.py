"""What the gateway tells a shim: one JSON file, readable by the gateway's user only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sandcell_gateway.engines.base import Limits, SandboxSpec
from sandcell_gateway.images import Image
from sandcell_gateway.private_files import write_whole

SPEC_FILE = "spec.json"
SANDBOX_FILE = "sandbox.json"
"""The engine's state, written by the shim; its presence means: adopt, do not create."""
SOCKET_FILE = "shim.sock"


@dataclass(frozen=True)
class ShimSpec:
    """One session as its shim sees it."""

    session_id: str
    engine: str
    interpreter: str
    """The default kernel's `header.session`."""
    state_dir: str
    """The session's directory: `workspace/`, `env/`, `journal/`, `engine/` and these files."""
    socket_dir: str
    """Short runtime directory: `shim.sock`, and `k/` for the sandbox's sockets."""
    image: str
    """Prefix of the Python environment that is the image."""
    language: str = "python"
    env: dict[str, str] = field(default_factory=dict[str, str])
    uid: int | None = None
    limits: Limits = field(default_factory=Limits)
    journal_bytes: int = 256 << 20
    """Most bytes of the journal's files."""

    def write(self) -> Path:
        """Store it with mode 0600, whole or not at all."""
        path = Path(self.state_dir) / SPEC_FILE
        write_whole(path, json.dumps(asdict(self)))
        return path

    def sandbox(self, image: Image) -> SandboxSpec:
        """What its sandbox is made of, for the engine."""
        state, sockets = Path(self.state_dir), Path(self.socket_dir)
        return SandboxSpec(
            session_id=self.session_id,
            image=image,
            workspace=state / "workspace",
            environment=state / "env",
            sockets=sockets / "k",
            state=state / "engine",
            env=self.env,
            uid=self.uid,
            limits=self.limits,
        )

    @classmethod
    def read(cls, path: Path) -> ShimSpec:
        """Load a stored spec."""
        stored: dict[str, Any] = json.loads(path.read_text())
        limits = Limits(**stored.pop("limits"))
        return cls(**stored, limits=limits)
