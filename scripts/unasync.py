"""Write `client/sandcell/_sync` from `client/sandcell/_async`: scripts/unasync.py [--check]

The asynchronous client is written by hand, its synchronous twin is this
translation of it, word by word. `--check` writes nothing and exits with 1 when
the two differ; a test does the same.
"""

from __future__ import annotations

import io
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "client" / "sandcell"
SOURCE, TARGET = ROOT / "_async", ROOT / "_sync"
BY_HAND = {"_threads.py"}
"""Modules whose twins differ in more than words."""

NOTE = "# Generated from _async by scripts/unasync.py; change it there.\n"
WORDS = {
    "AsyncClient": "Client",
    "AsyncCommand": "Command",
    "AsyncCommands": "Commands",
    "AsyncGenerator": "Generator",
    "AsyncFiles": "Files",
    "AsyncHTTPTransport": "HTTPTransport",
    "AsyncRun": "Run",
    "AsyncSession": "Session",
    "AsyncSessions": "Sessions",
    "AsyncTokens": "Tokens",
    "AsyncTransport": "Transport",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "_async": "_sync",
    "aclose": "close",
    "aclosing": "closing",
    "asynccontextmanager": "contextmanager",
    "aiter_raw": "iter_raw",
    "aread": "read",
}
DROPPED = {"async", "await"}
PHRASES = {
    '"""The client for asyncio. `_sync` is generated from this package."""': (
        '"""The client for ordinary code, generated from `_async`."""'
    ),
    '"""One session, for asyncio."""': '"""One session."""',
    '"""A gateway and its sessions, for asyncio."""': '"""A gateway and its sessions."""',
    "An async context manager, which closes it.": "A context manager, which closes it.",
    "See `AsyncSession.run`.": "See `Session.run`.",
    "See `AsyncSession.run_many`.": "See `Session.run_many`.",
    "An async context manager; `aclose` does the same.": (
        "A context manager; `close` does the same."
    ),
}


def translate(source: str) -> str:
    """The synchronous form of one module."""
    lines = source.splitlines(keepends=True)
    edits: list[tuple[int, int, int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.NAME:
            continue
        row, start = token.start
        end = token.end[1]
        if token.string in DROPPED:
            # With the blank that follows it.
            edits.append((row, start, end + 1, ""))
        elif token.string in WORDS:
            edits.append((row, start, end, WORDS[token.string]))
    for row, start, end, text in reversed(edits):
        line = lines[row - 1]
        lines[row - 1] = line[:start] + text + line[end:]
    result = "".join(lines)
    for phrase, replacement in PHRASES.items():
        result = result.replace(phrase, replacement)
    return NOTE + result


def differences(*, write: bool) -> list[str]:
    """The names of modules whose twin is not what it should be; with `write` they are put right."""
    wrong: list[str] = []
    sources = {path.name: path for path in sorted(SOURCE.glob("*.py"))}
    for name, path in sources.items():
        if name in BY_HAND:
            continue
        expected = translate(path.read_text())
        twin = TARGET / name
        if not twin.exists() or twin.read_text() != expected:
            wrong.append(name)
            if write:
                TARGET.mkdir(exist_ok=True)
                twin.write_text(expected)
    for twin in sorted(TARGET.glob("*.py")):
        if twin.name not in sources:
            wrong.append(twin.name)
            if write:
                twin.unlink()
    return wrong


def main() -> int:
    """The program."""
    check = "--check" in sys.argv[1:]
    wrong = differences(write=not check)
    if check and wrong:
        sys.stderr.write(f"run scripts/unasync.py, these differ: {', '.join(wrong)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
