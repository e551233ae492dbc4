"""How much a tree of files takes on the disk, when whoever made the tree is hostile.

Every step is relative to a directory's descriptor and follows no link, so the walk
never leaves the tree, whatever is moved meanwhile. What is too deep or too many to
count ends the count, and the result says so. A directory that the gateway's user may
not read counts as empty.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sandcell_gateway.engines.base import DiskUsage

MAX_FILES = 2_000_000
"""Most files, directories included, that a session's trees may have."""
MAX_DEPTH = 128
"""Deepest nesting of directories; each level holds a descriptor open during the walk."""
BLOCK = 512
"""What st_blocks counts in (stat(2))."""
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def measure(*roots: Path) -> DiskUsage:
    """What these trees take together; a file with several names counts once."""
    walk = _Walk()
    for root in roots:
        with contextlib.suppress(OSError):
            walk.tree(os.open(root, _FLAGS))
    return DiskUsage(walk.bytes, walk.files, walk.complete)


@dataclass
class _Walk:
    bytes: int = 0
    files: int = 0
    complete: bool = True
    _linked: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])

    def tree(self, root: int) -> None:
        """Depth first, with a stack of open directories instead of recursion."""
        stack = [(root, self._names(root))]
        try:
            while stack and self.files < MAX_FILES:
                directory, names = stack[-1]
                name = next(names, None)
                if name is None:
                    os.close(stack.pop()[0])
                elif len(stack) >= MAX_DEPTH:
                    self.complete = False
                else:
                    with contextlib.suppress(OSError):
                        child = os.open(name, _FLAGS, dir_fd=directory)
                        stack.append((child, self._names(child)))
        finally:
            self.complete = self.complete and not stack
            for directory, _ in stack:
                os.close(directory)

    def _names(self, directory: int) -> Iterator[str]:
        """Count what is in it; the names of its directories."""
        names: list[str] = []
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    self._count(entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        names.append(entry.name)
                if self.files >= MAX_FILES:
                    break
        return iter(names)

    def _count(self, found: os.stat_result) -> None:
        self.files += 1
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            key = (found.st_dev, found.st_ino)
            if key in self._linked:
                return
            self._linked.add(key)
        self.bytes += found.st_blocks * BLOCK
