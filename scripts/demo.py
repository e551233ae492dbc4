"""Run notebooks/quickstart.ipynb in a sandbox: `make demo`.

Executes the notebook with nbclient on the kernel `sandcell`, as any notebook tool
would, and shows each cell as it ends. Writes build/quickstart.ipynb and
build/quickstart.html. Exits with 1, and says why, unless the result holds a
plot, a table and only the errors that the notebook announces.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
BUILD = ROOT / "build"

CELL_SECONDS = 120
"""How long one cell may take."""
START_SECONDS = 60
"""How long the kernel may take until it answers."""
STOP_SECONDS = 20
"""How long the gateway may take to end after the notebook."""
MAY_RAISE = "raises-exception"
"""Tag of a cell that shows an error on purpose."""
ANSI = re.compile(r"\x1b\[[0-9;]*m")
"""Colours of a traceback; here they would only be noise."""
STAGES = ("connect", "create", "queue", "execute", "transfer")
"""Where the time of a cell can go, in the order of its way."""


class DemoFailed(Exception):
    """The notebook did not do what it promises; the text names the cell and the reason."""


@dataclass
class Timing:
    """How long one cell took, in seconds."""

    title: str
    wall: float
    stages: Mapping[str, float]


@dataclass
class Progress:
    """Prints one line for each cell and keeps the times; its methods are nbclient's hooks."""

    console: Console
    notebook: NotebookNode
    timings: list[Timing] = field(default_factory=list[Timing])
    engine: str = ""
    first: float = 0.0
    """`perf_counter` when the first cell started."""
    _started: float = 0.0

    def starts(self, cell: NotebookNode, cell_index: int) -> None:
        """Called before a cell of any kind."""
        self._started = time.perf_counter()
        self.first = self.first or self._started

    def executed(
        self, cell: NotebookNode, cell_index: int, execute_reply: Mapping[str, Any]
    ) -> None:
        """Called when a code cell has its reply."""
        wall = time.perf_counter() - self._started
        told = execute_reply.get("metadata", {}).get("sandcell", {})
        stages = attributed(told, time.time() - wall, wall, first=not self.timings)
        self.timings.append(Timing(cell["id"], wall, stages))
        self.engine = self.engine or used_engine()
        failed = execute_reply["content"]["status"] == "error"
        shown = "[red]✗[/]" if failed and not may_raise(cell) else "[green]✓[/]"
        self.console.print(
            f"  {shown} {cell['id']:<10} [dim]{wall:6.2f} s[/]  {described(cell)}", highlight=False
        )


def attributed(
    told: Mapping[str, Any], started: float, wall: float, *, first: bool
) -> dict[str, float]:
    """A cell's stages in seconds, adding up to `wall`; empty when the session was not asked.

    `told` is what the session says of the cell, with Unix times; `started` is one, too.
    Whatever the `first` cell waited for before it ran is the making of the session.
    """
    stages: dict[str, float] = dict(told.get("stages", {}))
    if not stages:
        return {}
    if first and "create" not in stages:
        stages["create"] = told["stamps"]["received"] - started + stages.pop("queue", 0.0)
    stages["transfer"] = stages.get("transfer", 0.0) + wall - sum(stages.values())
    return stages


def may_raise(cell: NotebookNode) -> bool:
    """Whether the cell announces its error."""
    return MAY_RAISE in cell["metadata"].get("tags", [])


def described(cell: NotebookNode) -> str:
    """What the outputs of a cell are, in a few words."""
    words: list[str] = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        if output["output_type"] == "error":
            words.append(f"{output['ename']}, as announced" if may_raise(cell) else output["ename"])
        elif output["output_type"] == "stream":
            words.append("text")
        elif "image/png" in data:
            words.append("plot")
        elif "application/vnd.jupyter.widget-view+json" in data:
            words.append("widget")
        elif "<table" in data.get("text/html", ""):
            words.append("table")
    return ", ".join(dict.fromkeys(words))


def used_engine() -> str:
    """The engine of the session that is running, and whether it isolates."""
    from sandcell import Client

    with Client() as client:
        sessions = client.sessions.list(status=["running"])
    if not sessions:
        return "unknown"
    model = sessions[0].model
    return model.engine + ("" if model.isolated else " (isolates nothing from this machine)")


def check(notebook: NotebookNode) -> None:
    """Raise `DemoFailed` unless the executed notebook shows what it promises."""
    outputs = [
        (cell, output)
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    ]
    for cell, output in outputs:
        if output["output_type"] == "error" and not may_raise(cell):
            raise DemoFailed(
                f"cell '{cell['id']}' raised {output['ename']}: {output['evalue']}\n"
                + "\n".join(output["traceback"])
            )
    for cell in notebook["cells"]:
        if may_raise(cell) and not any(o["output_type"] == "error" for o in cell["outputs"]):
            raise DemoFailed(f"cell '{cell['id']}' should show an error and shows none")
    if not any("image/png" in output.get("data", {}) for _, output in outputs):
        raise DemoFailed("no cell shows a plot (image/png)")
    if not any("<table" in output.get("data", {}).get("text/html", "") for _, output in outputs):
        raise DemoFailed("no cell shows a table")


@contextmanager
def own_state() -> Generator[Path]:
    """Settings, state and runtime files of its own, so that the user's stay as they are.

    Of the user's settings only SANDCELL_ENGINE counts.

    Set in the environment, where the kernel that nbclient starts finds them. The
    directory is short, because the paths of Unix sockets are.
    """
    directory = Path(tempfile.mkdtemp(prefix="sandcell-", dir="/tmp"))
    directory.chmod(0o755)
    for name in list(os.environ):
        if name.startswith("SANDCELL_") and name != "SANDCELL_ENGINE":
            del os.environ[name]
    os.environ.update(
        SANDCELL_STATE_DIR=str(directory / "state"),
        SANDCELL_RUNTIME_DIR=str(directory / "run"),
        SANDCELL_CLOSE_GRACE="0",  # the session ends with its notebook
        SANDCELL_EMBEDDED_IDLE="1",  # and the gateway with its session
        JUPYTER_PREFER_ENV_PATH="1",  # this environment's kernel, not one of the user's
    )
    try:
        yield directory
    finally:
        wait_for_gateway(directory / "run" / "gateway.lock")
        shutil.rmtree(directory, ignore_errors=True)


def wait_for_gateway(lock: Path) -> None:
    """Until the gateway, which holds its lock for life, has ended; warn after STOP_SECONDS."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    if not lock.exists():
        return
    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)
    try:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    except TimeoutError:
        print(f"The demo's gateway still runs {STOP_SECONDS} s after its last session.")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def run(console: Console) -> Progress:
    """Execute the notebook and write the results. Raises `DemoFailed`."""
    text = NOTEBOOK.read_text()
    read = nbformat.reads(text, as_version=4)  # pyright: ignore[reportUnknownMemberType]
    notebook = cast(NotebookNode, read)
    progress = Progress(console, notebook)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        startup_timeout=START_SECONDS,
        kernel_name="sandcell",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        on_cell_start=progress.starts,
        on_cell_executed=progress.executed,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise DemoFailed(str(error)) from error
    finally:
        write(notebook)
    check(notebook)
    return progress


def write(notebook: NotebookNode) -> None:
    """Keep what was executed, also when it failed."""
    BUILD.mkdir(exist_ok=True)
    text = str(nbformat.writes(notebook))  # pyright: ignore[reportUnknownMemberType]
    (BUILD / NOTEBOOK.name).write_text(text + "\n")
    html, _ = HTMLExporter().from_notebook_node(notebook)
    (BUILD / NOTEBOOK.with_suffix(".html").name).write_text(html)


def times(progress: Progress, started: float, ended: float) -> Table:
    """Where the time went: rows that add up to the time from `started` to `ended`."""
    stages = {
        name: sum(timing.stages.get(name, 0.0) for timing in progress.timings) for name in STAGES
    }
    cells = sum(timing.wall for timing in progress.timings)
    rows = [("start the local kernel", progress.first - started)]
    rows += [(name, seconds) for name, seconds in stages.items() if seconds]
    rows += [("cells that the local kernel answers", cells - sum(stages.values()))]
    rows += [("stop, write the results", ended - progress.first - cells)]
    total = ended - started
    table = Table(title="Where the time went", title_justify="left", title_style="bold")
    table.add_column("stage")
    table.add_column("ms", justify="right")
    table.add_column("%", justify="right")
    for name, seconds in rows:
        table.add_row(name, f"{seconds * 1000:,.0f}", f"{seconds / total:.0%}")
    table.add_section()
    table.add_row("total", f"{total * 1000:,.0f}", "")
    return table


def show_logs(console: Console, state: Path) -> None:
    """The last lines of the gateway's and the shims' logs."""
    for log in [state / "state" / "gateway.log", *state.glob("state/sessions/*/shim.log")]:
        if log.is_file():
            console.print(f"[bold]{log.name}[/], the last lines:")
            lines = log.read_text(errors="replace").splitlines()[-15:]
            console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    """Run the demo; the exit code."""
    console = Console()
    console.print(f"[bold]{NOTEBOOK.relative_to(ROOT)}[/] in a sandbox, cell by cell:")
    started = time.perf_counter()
    with own_state() as state:
        try:
            progress = run(console)
        except Exception as error:
            kind = "" if isinstance(error, DemoFailed) else f"{type(error).__name__}: "
            console.print("[bold red]The demo failed.[/]")
            console.print(ANSI.sub("", f"{kind}{error}"), markup=False, highlight=False)
            show_logs(console, state)
            return 1
    console.print()
    console.print(times(progress, started, time.perf_counter()))
    console.print(f"Engine: {progress.engine}")
    console.print(f"Results: build/{NOTEBOOK.name}, build/{NOTEBOOK.stem}.html", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
