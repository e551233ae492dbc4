"""The documentation as data: documents, code blocks, commands and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<mark>[a-z]+) -->\n)?```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block of code."""

    document: Path
    line: int
    language: str
    mark: str
    """What an HTML comment just before asks of the tests: `run`, `gateway`, or nothing."""
    text: str

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """All blocks of one language."""
    found: list[Block] = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in _BLOCK.finditer(text):
            if match["language"] == language:
                line = text.count("\n", 0, match.start("text"))
                found.append(Block(document, line, language, match["mark"] or "", match["text"]))
    return found


def commands() -> list[tuple[str, str]]:
    """Place and text of every command in a console block: after a prompt, if it has one."""
    found: list[tuple[str, str]] = []
    for block in blocks("console"):
        lines = [line for line in block.text.splitlines() if line.strip()]
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += [(block.place, line) for line in prompted or lines]
    return found


def links() -> list[tuple[Path, str]]:
    """Document and target of every link."""
    return [
        (document, match["target"])
        for document in DOCUMENTS
        for match in _LINK.finditer(_BLOCK.sub("", document.read_text()))
    ]
