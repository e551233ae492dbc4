"""The table of faults: `scripts/fault-table`.

Runs the end-to-end tests that inject faults and prints a Markdown table of what
each recorded. Exits as pytest does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "tests" / "end_to_end"
FILES = ("test_outages*.py", "test_notebooks.py", "test_memory.py")
COUNTS = ("sent", "lost", "duplicated", "out_of_order")
"""What tests record besides `fault`, the fault's name."""


@dataclass(frozen=True)
class Row:
    """One test's record."""

    fault: str
    counts: tuple[str, ...]
    """Of `COUNTS`; a test that counts nothing has none."""
    outcome: str


def run(arguments: Sequence[str], report: Path) -> int:
    """The suite; pytest's exit code."""
    files = sorted(str(path) for pattern in FILES for path in SUITE.glob(pattern))
    # Only this older form of the report has a place for what a test records.
    options = [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    command = [sys.executable, "-m", "pytest", *files, *options, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def rows(report: Path) -> Iterator[Row]:
    """What the tests recorded. Raises `ElementTree.ParseError` for another file."""
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 (pytest has just written it)
        found = {
            item.get("name", ""): item.get("value", "") for item in case.iterfind("properties/*")
        }
        name = case.get("name", "").removeprefix("test_").replace("_", " ")
        counts = tuple(found[key] for key in COUNTS if key in found)
        yield Row(found.get("fault", name), counts, _outcome(case))


def _outcome(case: ET.Element) -> str:
    skipped = case.find("skipped")
    if case.find("failure") is not None or case.find("error") is not None:
        return "FAILED"
    if skipped is not None:
        return "known defect" if skipped.get("type") == "pytest.xfail" else "skipped"
    return "passed"


def table(found: Sequence[Row]) -> str:
    """As Markdown."""
    lines = [
        f"| fault | {' | '.join(COUNTS)} | test |".replace("_", " "),
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        counts = row.counts or ("",) * len(COUNTS)
        lines.append(f"| {row.fault} | {' | '.join(counts)} | {row.outcome} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run and print; the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        code = run(arguments, report)
        if report.exists():
            print(table(list(rows(report))))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
