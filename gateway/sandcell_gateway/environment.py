"""A session's own environment: a venv of the base interpreter over the image.

A venv made from a venv would see the base interpreter's packages, not the image's,
so this one names the image's directories in a `.pth` file: what the session
installs comes first, then the image (ISOLATION, "What is visible").

Once a session has run, the directory is hostile. So it is made aside and appears
whole, by a rename, and what exists is never read, written or executed again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sandcell_gateway.images import Image

PTH = "_sandcell_image.pth"


def make_environment(image: Image, path: Path, *, uid: int | None = None) -> None:
    """Make the environment at `path`, writable for `uid` (None: for us alone).

    It works at any path: nothing in it names its own place. A directory that is not
    empty is left as it is, so calling again is harmless. Raises `OSError`.
    """
    if path.is_dir() and any(path.iterdir()):
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _fill(image, aside)
        aside.chmod(0o755)
        if uid is not None:
            _give(aside, uid)
        aside.rename(path)  # replaces an empty directory (rename(2))
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _fill(image: Image, path: Path) -> None:
    name = f"python{image.version[0]}.{image.version[1]}"
    packages = path / "lib" / name / "site-packages"
    packages.mkdir(parents=True)
    (path / "lib64").symlink_to("lib")
    (path / "include").mkdir()
    (path / "bin").mkdir()
    (path / "bin" / "python").symlink_to(image.python)
    for alias in ("python3", name):
        (path / "bin" / alias).symlink_to("python")
    (path / "pyvenv.cfg").write_text(
        f"home = {image.python.parent}\n"
        "include-system-site-packages = false\n"
        f"version = {image.version[0]}.{image.version[1]}\n"
    )
    # addsitedir, not bare paths: the image's own .pth files must be honoured too.
    lines = [f"import site; site.addsitedir({str(place)!r})\n" for place in image.site_packages]
    (packages / PTH).write_text("".join(lines))


def _give(path: Path, uid: int) -> None:
    """Hand over what `_fill` made; nobody else has been there yet."""
    for directory, directories, files in os.walk(path):
        for name in (".", *directories, *files):
            os.chown(Path(directory) / name, uid, uid, follow_symlinks=False)
