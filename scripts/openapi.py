"""Write `docs/openapi.json` from the code: scripts/openapi [--check]

A test does what `--check` does.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from sandcell_gateway import paths
from sandcell_gateway.app import create_app
from sandcell_gateway.auth import Authenticator
from sandcell_gateway.settings import GatewaySettings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def document() -> str:
    """The interface's description as it is committed: sorted, so that changes are readable."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        place = Path(directory)
        settings = GatewaySettings(state_dir=place / "state", runtime_dir=place / "runtime")
        paths.prepare(settings)
        found = create_app(settings, Authenticator(None)).openapi()
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """The program."""
    text = document()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
    elif not TARGET.exists() or TARGET.read_text() != text:
        sys.stderr.write("run scripts/openapi: docs/openapi.json is not what the code says\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
