"""Ends the session of a kernel that had no time to do it.

A front end gives a kernel about a second; the gateway may be slow, far away or out of
reach just then. What the kernel could not tell it, a process of its own does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandcell import Client, GatewayUnreachable, NotFoundError, RequestTimeout
from sandcell_kernel.claims import Claim, State

PATIENCE = 600.0
"""Seconds for the gateway to come within reach; it closes the session itself in the end."""
RETRY = 2.0
"""Seconds between two attempts."""


@dataclass(frozen=True)
class Leaving:
    """What is left to do when a kernel has ended."""

    grace: float
    """Seconds the session outlives its kernel."""
    client: str
    """The kernel's name on its channel: others that are attached keep the session."""
    session_id: str | None
    create: dict[str, Any] | None
    """Arguments of a create that was not answered: they find what it made."""
    claim: str | None
    """The claim's file; another state in it means that a successor has the session."""
    state: str

    def hand_over(self) -> None:
        """Start the process that does it."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sandcell_kernel.leaving"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # front ends kill the kernel's whole group
        )
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(json.dumps(asdict(self)).encode())

    def carry_out(self) -> None:
        """Close the session as soon as the gateway can be told. Raises a `SandcellError`."""
        deadline = time.monotonic() + PATIENCE
        while not self._taken():
            try:
                self._close()
                break
            except NotFoundError:
                break
            except (GatewayUnreachable, RequestTimeout):
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY)

    def _close(self) -> None:
        with Client() as client:
            session_id = self.session_id
            if session_id is None:
                assert self.create is not None
                session_id = str(client.sessions.create(**self.create).id)
            client.sessions.get(session_id).close(grace=self.grace, client=self.client)

    def _taken(self) -> bool:
        if self.claim is None:
            return False
        try:
            return Claim.parse(Path(self.claim).read_text()).state is not State(self.state)
        except (OSError, ValueError, KeyError, TypeError):
            return False


if __name__ == "__main__":
    Leaving(**json.load(sys.stdin)).carry_out()
