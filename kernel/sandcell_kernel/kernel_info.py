"""What the kernel says of itself before the session exists.

The last true answer of a gateway's interpreter is kept on disk. Before there is one,
what is installed where the session's Python comes from tells the same. Debugger and
subshells are claimed only on such grounds (JupyterLab reads features once, on
connecting).
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandcell_wire.messages import PROTOCOL_VERSION

NO_ISOLATION = (
    "WARNING: this session's engine '{engine}' isolates nothing: "
    "cells run on the gateway's machine with the gateway's rights."
)


SUBSHELLS_SINCE = 7
"""Major version of the first ipykernel with subshells."""
_METADATA = re.compile(r"([\w.]+)-([\w.!+]+?)(?:-py[\d.]+)?\.(?:dist|egg)-info")


def cache_file(directory: Path, gateway: str) -> Path:
    """Where the answer for this gateway (URL, or environment prefix) is kept."""
    digest = hashlib.sha256(gateway.encode()).hexdigest()[:16]
    return directory / f"kernel-info-{digest}.json"


def _versions(places: Iterable[str]) -> dict[str, str]:
    """What is installed in these directories of packages: names in small letters.

    Read from the names of the metadata's directories: importlib.metadata tells the
    same, but importing it would delay the first answer by some 30 ms.
    """
    found: dict[str, str] = {}
    for place in places:
        try:
            names = [path.name for path in Path(place).iterdir()]
        except OSError:
            continue
        for name in names:
            if match := _METADATA.fullmatch(name):
                found.setdefault(match[1].lower(), match[2])
    return found


def _of_installed(versions: dict[str, str]) -> dict[str, Any]:
    """What an ipykernel answers that is installed in such company."""
    major = versions.get("ipykernel", "").partition(".")[0]
    if not major.isdecimal():
        return {}
    ipython = versions.get("ipython", "")
    features = ["kernel subshells"] if int(major) >= SUBSHELLS_SINCE else []
    return {
        "implementation_version": ipython,
        "banner": f"Python {platform.python_version()}\nIPython {ipython}\n",
        "supported_features": [*features, *(["debugger"] if "debugpy" in versions else [])],
    }


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


def _package_directories() -> list[str]:
    return [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]


@dataclass
class KernelInfo:
    """The content of kernel_info replies."""

    file: Path
    known: dict[str, Any]
    engine: str = ""
    isolated: bool = True

    @classmethod
    def load(cls, file: Path, *, own_image: bool = False) -> KernelInfo:
        """From the cache, or what is true of any Python kernel.

        With `own_image` sessions run in this process's own environment, so that what
        is installed here says more.
        """
        try:
            stored = json.loads(file.read_text())
            return cls(file, stored["content"], stored["engine"], stored["isolated"])
        except (OSError, ValueError, KeyError, TypeError):
            known = _of_installed(_versions(_package_directories())) if own_image else {}
            return cls(file, _default() | known)

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
