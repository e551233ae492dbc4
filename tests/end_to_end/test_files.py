"""Files go into a session and come out of it, over REST and both forms of the SDK."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import sandcell
from sandcell import AsyncClient, Session
from tests.support import gateways
from tests.support.home import Home
from tests.support.proxy import Way
from tests.support.route import TOKEN, Route

pytestmark = pytest.mark.linux

READY = 60.0
LARGE = 300 << 20
BOUND = 100 << 20
"""Most bytes that one of the processes on the way may grow by."""


@pytest.fixture(scope="module")
def made(route: Route) -> Iterator[Session]:
    with sandcell.Client(route.proxy.url, TOKEN) as client:
        yield client.sessions.create(wait=READY, limits={"disk": "1GiB"})


@pytest.fixture
def session(made: Session) -> Iterator[Session]:
    """The session, empty again at the end."""
    yield made
    for file in made.files.list():
        made.files.remove(file.path, recursive=True)


@pytest.fixture
def http(route: Route, session: Session) -> Iterator[httpx.Client]:
    """A client at the session's files."""
    base = f"{route.proxy.url}/v1/sessions/{session.id}/files/"
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def test_files_and_cells_see_the_same(session: Session) -> None:
    made = session.files.write("data/ä b.txt", "größe\n")
    assert (made.path, made.type, made.size) == ("data/ä b.txt", "file", 8)
    cell = session.execute(
        "from pathlib import Path\n"
        "print(Path('data/ä b.txt').read_text(), end='')\n"
        "Path('data/ä b.txt').write_text('changed')\n"
        "Path('out').mkdir(); Path('out/result.bin').write_bytes(b'\\0\\xff')"
    )
    assert cell.raise_for_error().stdout == "größe\n"
    assert session.files.read_text("data/ä b.txt") == "changed"
    assert session.files.read("out/result.bin") == b"\0\xff"
    listed = session.files.list(recursive=True)
    assert [(file.path, file.type) for file in listed] == [
        ("data", "directory"),
        ("data/ä b.txt", "file"),
        ("out", "directory"),
        ("out/result.bin", "file"),
    ]
    session.files.remove("data", recursive=True)
    assert session.files.make_directory("new/dir").type == "directory"
    assert [file.path for file in session.files.list()] == ["new", "out"]


async def test_asyncio(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3 << 20))
    async with AsyncClient() as client:
        session = await client.sessions.create(wait=READY)
        await session.files.upload(source, "in/copy.bin")
        back = await session.files.download("in/copy.bin", tmp_path / "back.bin")
        assert back.read_bytes() == source.read_bytes()
        assert await session.files.read("in/copy.bin") == source.read_bytes()
        assert (await session.files.remove("in/copy.bin")).type == "file"
        assert await session.files.list("in") == []
        with pytest.raises(sandcell.NotFoundError, match=r"in/copy\.bin"):
            await session.files.read("in/copy.bin")
        await session.close()


def test_what_a_sandbox_plants_is_not_followed(session: Session) -> None:
    session.execute(
        "import os\nos.symlink('/etc/passwd', 'link')\nos.symlink('/', 'root')\nos.mkfifo('pipe')"
    ).raise_for_error()
    for path in ("link", "root/etc/passwd", "pipe"):
        with pytest.raises(sandcell.ConflictError, match=path):
            session.files.read(path)
    with pytest.raises(sandcell.ConflictError):
        session.files.write("root/tmp/planted", b"x")
    assert [file.type for file in session.files.list()] == ["link", "other", "link"]


def test_parts_and_etags(session: Session, http: httpx.Client) -> None:
    session.files.write("digits", b"0123456789")
    whole = http.get("digits")
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert whole.headers["content-disposition"] == "attachment"
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = http.get("digits", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"
    assert http.get("digits", headers={"Range": "bytes=10-"}).status_code == 416
    tag = whole.headers["etag"]
    same = http.get("digits", headers={"If-None-Match": tag})
    assert (same.status_code, same.content) == (304, b"")
    session.files.write("digits", b"abc")
    assert http.get("digits", headers={"If-None-Match": tag}).content == b"abc"
    resumed = http.get("digits", headers={"Range": "bytes=1-", "If-Range": tag})
    assert (resumed.status_code, resumed.content) == (200, b"abc")


def test_paths_that_are_none(http: httpx.Client, session: Session) -> None:
    bad = ["..%2Fx", "a/..%2F..%2F..%2Fx", "%2Fetc%2Fpasswd", "a%00b", "%ff%fe", "x" * 300, ""]
    for path in [*bad, "%2e%2e/x", "y/" * 2100]:
        for method in ("GET", "PUT", "DELETE"):
            content = b"x" if method == "PUT" else None
            answer = http.request(method, f"{http.base_url}{path}", content=content)
            assert answer.status_code in (404, 405, 422), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
    assert session.files.list() == []


def test_a_line_feed_belongs_to_the_name(session: Session) -> None:
    session.files.write("a", "another file")
    for name in ("a\n", "\n", "data/b\nc"):
        session.files.write(name, name)
        assert session.files.read_text(name) == name
    assert session.files.read_text("a") == "another file"


def test_an_upload_that_breaks_off_leaves_nothing(
    route: Route, session: Session, tmp_path: Path
) -> None:
    session.files.write("file", b"old")
    source = tmp_path / "large"
    source.write_bytes(b"x" * (8 << 20))
    route.proxy.cut_after(Way.UP, 1 << 20)
    with pytest.raises(sandcell.GatewayUnreachable):
        session.files.upload(source, "file")
    assert session.files.read("file") == b"old"
    session.files.upload(source, "file")
    assert session.files.list()[0].size == 8 << 20


def test_the_disk_limit_holds_for_uploads(session: Session, tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(sandcell.QuotaExceeded, match="disk limit"):
        session.files.upload(source)
    assert session.files.list() == []


@pytest.mark.slow
def test_large_files_pass_through_little_memory(
    route: Route, session: Session, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    pids = [os.getpid(), route.gateway_pid, gateways.shim(route.home).pid]
    before = [psutil.Process(pid).memory_info().rss for pid in pids]
    session.files.upload(source)
    session.files.download("large", tmp_path / "back")
    for pid, used in zip(pids, before, strict=True):
        assert psutil.Process(pid).memory_info().rss - used < BOUND
    with source.open("rb") as one, (tmp_path / "back").open("rb") as other:
        while piece := one.read(1 << 20):
            assert other.read(1 << 20) == piece
