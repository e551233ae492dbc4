"""What works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import platform
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from sandcell_gateway import paths
from sandcell_gateway.engines import registry
from sandcell_gateway.engines.base import Engine, EngineError, Probe
from sandcell_gateway.images import Image, ImageError
from sandcell_gateway.proofs import keys
from sandcell_gateway.settings import GatewaySettings, SettingsError

CONNECT_SECONDS = 5.0
"""How long the embedded gateway may take to answer."""
PARTS = ("ipykernel", "jupyter_client", "pyzmq", "uvicorn", "websockets")
KERNEL = "sandcell"


class Level(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    level: Level
    text: str
    hint: str = ""


@dataclass(frozen=True)
class EngineReport:
    """One engine on this machine."""

    name: str
    works: bool
    isolated: bool
    chosen: bool
    reason: str
    hint: str = ""
    threats: dict[str, str] = field(default_factory=dict[str, str])
    """Threat → how it is answered here."""


@dataclass(frozen=True)
class Report:
    """All that was found."""

    engines: list[EngineReport]
    findings: list[Finding]
    engine_failure: str = ""
    """Why no engine can be used with the present setting."""

    @property
    def cells_can_run(self) -> bool:
        """Whether a session can be made."""
        return any(engine.chosen for engine in self.engines) and not any(
            finding.level is Level.BAD for finding in self.findings
        )

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps({"cells_can_run": self.cells_can_run, **asdict(self)}, indent=2)

    def show(self) -> None:
        """Print for people."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console()
        for engine in self.engines:
            table = Table(title=_title(engine), title_justify="left", box=None, pad_edge=False)
            table.add_column("threat", no_wrap=True)
            table.add_column("answer")
            for threat, answer in engine.threats.items():
                table.add_row(Text(f"  {threat}"), Text(answer))
            console.print(table if engine.threats else _title(engine))
            if engine.hint:
                console.print(Text(f"  → {engine.hint}"))
        if self.engine_failure:
            console.print(Text(f"no engine: {self.engine_failure}"))
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in self.findings:
            hint = f" → {finding.hint}" if finding.hint else ""
            table.add_row(finding.level.value, finding.what, Text(finding.text + hint))
        console.print(table)
        console.print("cells can run" if self.cells_can_run else "cells cannot run")


def _title(engine: EngineReport) -> str:
    used = ", used" if engine.chosen else ""
    isolation = "" if engine.isolated else ", isolates nothing"
    state = "works" if engine.works else "does not work"
    return f"engine {engine.name}: {state}{used}{isolation}: {engine.reason}"


def examine(settings: GatewaySettings) -> Report:
    """Look at everything. Starts nothing that stays, changes nothing."""
    try:
        chosen, _ = registry.choose(settings.engine)
        name, failure = chosen.name, ""
    except EngineError as error:
        name, failure = "", str(error)
    engines = [_engine(other, name) for other in registry.names()]
    findings = [
        *_versions(),
        _image(),
        *_directories(settings),
        _signing_key(settings),
        _daemon(settings),
        _kernelspec(),
        _lifetime(),
    ]
    return Report(engines, findings, failure)


def _engine(name: str, chosen: str) -> EngineReport:
    try:
        engine: Engine = registry.load(name)
        probe: Probe = engine.probe()
    except Exception as error:  # an engine of somebody else may fail in any way
        return EngineReport(name, False, False, False, f"{type(error).__name__}: {error}")
    return EngineReport(
        name=name,
        works=probe.works,
        isolated=engine.isolated,
        chosen=name == chosen,
        reason=probe.reason,
        hint=probe.hint,
        threats=dict(probe.facts),
    )


def _versions() -> Iterator[Finding]:
    yield Finding(
        "versions",
        Level.OK,
        f"sandcell {importlib.metadata.version('sandcell')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()}",
    )
    for part in PARTS:
        try:
            yield Finding(part, Level.OK, importlib.metadata.version(part))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(part, Level.BAD, "is not installed", "pip install sandcell again")


def _image() -> Finding:
    try:
        image = Image.of_prefix(Path(sys.prefix))
    except (ImageError, OSError) as error:
        return Finding("image", Level.BAD, str(error))
    return Finding("image", Level.OK, f"{image.prefix}, read-only in every sandbox")


def _directories(settings: GatewaySettings) -> Iterator[Finding]:
    for what in ("state_dir", "runtime_dir"):
        path: Path = getattr(settings, what)
        if not path.exists():
            yield Finding(what, Level.OK, f"{path}, not made yet")
            continue
        try:
            paths.private_directory(path)
        except SettingsError as error:
            yield Finding(what, Level.BAD, str(error))
        else:
            yield Finding(what, Level.OK, f"{path}, private")


def _signing_key(settings: GatewaySettings) -> Finding:
    path = settings.state_dir / keys.KEY
    if not path.exists():
        return Finding("signing key", Level.OK, "not made yet; the gateway's first start makes it")
    try:
        name = keys.look(path)
    except SettingsError as error:
        return Finding("signing key", Level.BAD, str(error))
    return Finding("signing key", Level.OK, f"{name}, readable for this user only")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CONNECT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _daemon(settings: GatewaySettings) -> Finding:
    what, path = "embedded gateway", settings.runtime_dir / paths.SOCKET
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/health")
        body = json.loads(connection.getresponse().read())
    except (FileNotFoundError, ConnectionRefusedError):
        return Finding(what, Level.OK, "does not run now; the first kernel starts it")
    except (OSError, http.client.HTTPException, ValueError) as error:
        log = settings.state_dir / paths.LOG
        return Finding(what, Level.BAD, f"does not answer at {path}: {error}", f"see {log}")
    finally:
        connection.close()
    mine, its = importlib.metadata.version("sandcell"), str(body.get("version"))
    if its != mine:
        hint = "it ends when its sessions are closed; then the new one is started"
        return Finding(what, Level.NOTE, f"runs, of version {its}", hint)
    return Finding(what, Level.OK, f"runs at {path}")


def _kernelspec() -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager

    found = KernelSpecManager().find_kernel_specs()
    if KERNEL in found:
        return Finding("kernelspec", Level.OK, found[KERNEL])
    return Finding(
        "kernelspec", Level.NOTE, "Jupyter does not find it", "sandcell kernel install --user"
    )


def _lifetime() -> Finding:
    """Whether sessions outlive what started them."""
    group = Path("/proc/self/cgroup")
    names = [line.split(":", 2)[2] for line in group.read_text().splitlines()]
    inner = sorted({name for name in names if name != "/"})
    if inner:
        return Finding(
            "lifetime",
            Level.NOTE,
            f"sessions started from here end with the control group {inner[0]}",
            "start the gateway as a service of its own to have them outlive it",
        )
    what = "this container" if Path("/.dockerenv").exists() else "this machine"
    return Finding("lifetime", Level.OK, f"sessions live as long as {what}")
