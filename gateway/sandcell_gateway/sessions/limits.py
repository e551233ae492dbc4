"""What one session may use: what it asked for, within what the gateway allows."""

from __future__ import annotations

from typing import Any

from sandcell_gateway.engines.base import Limits
from sandcell_gateway.engines.cgroups import memory_bound
from sandcell_gateway.errors import BadRequest
from sandcell_gateway.settings import GatewaySettings
from sandcell_wire.models import LimitsModel, SessionLimits

MEMORY_SHARE = 0.75
"""Part of the machine's memory that one session may have unless the setting says more."""
TMP_SHARE = 0.25
"""Part of a session's memory that each of its private file systems may take: filled to
the brim they must leave room for an interpreter that empties them."""


def allowed(settings: GatewaySettings) -> dict[str, Any]:
    """The most that one session may have, by the names of `SessionLimits`; 0 is no limit."""
    memory = settings.max_memory
    return {
        "memory": int(memory_bound() * MEMORY_SHARE) if memory is None else int(memory),
        "cpus": settings.max_cpus,
        "disk": int(settings.max_disk),
        "processes": settings.max_processes,
    }


def decide(wanted: SessionLimits, settings: GatewaySettings, soft: frozenset[str]) -> LimitsModel:
    """A session's limits. Raises `BadRequest` when it wants more than is allowed."""
    values = allowed(settings)
    for name, most in list(values.items()):
        value = getattr(wanted, name)
        if value is None:
            continue
        if most and value > most:
            raise BadRequest(
                f"limits.{name}: at most {most:g} is allowed here, got {value:g}",
                f"ask for less, or raise the gateway's max_{name}",
            )
        values[name] = value
    return LimitsModel(**values, soft=sorted(name for name in soft if values[name]))


def for_engine(limits: LimitsModel) -> Limits:
    """As the engine takes them."""
    defaults = Limits()
    share = int(limits.memory * TMP_SHARE)
    return Limits(
        memory_bytes=limits.memory,
        cpus=limits.cpus,
        disk_bytes=limits.disk,
        processes=limits.processes,
        open_files=defaults.open_files,
        file_bytes=limits.disk,
        tmp_bytes=min(defaults.tmp_bytes, share) if share else defaults.tmp_bytes,
    )
