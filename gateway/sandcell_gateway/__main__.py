"""`python -m sandcell_gateway --embedded [--ready-fd N]`: start the embedded gateway."""

from __future__ import annotations

import argparse
import sys

from sandcell_gateway import daemon
from sandcell_gateway.paths import Locked
from sandcell_gateway.settings import SettingsError


def main() -> int:
    """The program. Exit code 1 for what the user can repair."""
    parser = argparse.ArgumentParser(prog="python -m sandcell_gateway", description=__doc__)
    parser.add_argument("--embedded", action="store_true", required=True)
    parser.add_argument("--ready-fd", type=int, help="pipe that gets one byte when it is ready")
    arguments = parser.parse_args()
    try:
        daemon.run(arguments.ready_fd)
    except (SettingsError, Locked) as error:
        sys.stderr.write(f"sandcell gateway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
