"""What the kernel says of itself before the session exists.

The last true answer of a gateway's interpreter is kept on disk; debugger and
subshells are claimed only when that answer claimed them (JupyterLab reads features
once, on connecting).
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandcell_wire.messages import PROTOCOL_VERSION

NO_ISOLATION = (
    "WARNING: this session's engine '{engine}' isolates nothing: "
    "cells run on the gateway's machine with the gateway's rights."
)


def cache_file(directory: Path, gateway: str) -> Path:
    """Where the answer for this gateway (URL, or environment prefix) is kept."""
    digest = hashlib.sha256(gateway.encode()).hexdigest()[:16]
    return directory / f"kernel-info-{digest}.json"


def _default() -> dict[str, Any]:
    version = platform.python_version()
    return {
        "status": "ok",
        "protocol_version": PROTOCOL_VERSION,
        "implementation": "ipython",
        "implementation_version": "",
        "language_info": {
            "name": "python",
            "version": version,
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
        "help_links": [],
        "supported_features": [],
    }


@dataclass
class KernelInfo:
    """The content of kernel_info replies."""

    file: Path
    known: dict[str, Any]
    engine: str = ""
    isolated: bool = True

    @classmethod
    def load(cls, file: Path) -> KernelInfo:
        """From the cache, or what is true of any Python kernel."""
        try:
            stored = json.loads(file.read_text())
            return cls(file, stored["content"], stored["engine"], stored["isolated"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls(file, _default())

    def content(self) -> dict[str, Any]:
        """A kernel_info_reply."""
        banner = "sandcell: cells run in a sandbox session"
        if not self.isolated:
            banner = NO_ISOLATION.format(engine=self.engine)
        return {**self.known, "status": "ok", "banner": f"{banner}\n{self.known.get('banner', '')}"}

    def learn(self, content: dict[str, Any], engine: str, isolated: bool) -> None:
        """Keep what the interpreter itself answered. A full disk costs only the cache."""
        if (content, engine, isolated) == (self.known, self.engine, self.isolated):
            return
        self.known, self.engine, self.isolated = content, engine, isolated
        stored = {"content": content, "engine": engine, "isolated": isolated}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            aside = self.file.with_suffix(".new")
            aside.write_text(json.dumps(stored))
            aside.rename(self.file)
        except OSError:
            pass
