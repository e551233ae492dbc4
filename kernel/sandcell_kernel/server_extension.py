"""An extension of Jupyter's server that lets it pass on everything that a cell prints.

By default the server drops output beyond 1,000 messages or 1 MB a second, which every
replay after an outage exceeds. Who set the limit has it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["_jupyter_server_extension_points", "_load_jupyter_server_extension"]

CONNECTION = "ZMQChannelsWebsocketConnection"
LIMIT = "limit_rate"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "sandcell_kernel.server_extension"}]


def _load_jupyter_server_extension(server: Any) -> None:
    settings = server.config[CONNECTION]
    if LIMIT not in settings:
        settings[LIMIT] = False
