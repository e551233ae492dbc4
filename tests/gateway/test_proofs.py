"""Proofs of real sessions: made, compared when a session is taken over, and taken away."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sandcell import AsyncClient, AsyncSession, Client, EmbeddedStartError, NotFoundError
from sandcell_gateway.journal.records import State, parse
from sandcell_gateway.proofs.archive import open_archive
from sandcell_gateway.proofs.audit import Audit, audit
from sandcell_gateway.proofs.keys import KEY
from sandcell_gateway.sessions import processes
from tests.gateway.support import (
    PATIENCE,
    Gateway,
    alive,
    running_gateway,
    until,
)
from tests.gateway.test_program import run as run_program
from tests.gateway.test_real import shims
from tests.support.home import Home

pytestmark = pytest.mark.linux

WAIT = 60.0
QUIET: dict[str, Any] = {"proof_executions": 0, "proof_bytes": 0}
"""Nothing is signed unless a test asks for it."""


@asynccontextmanager
async def a_gateway(**given: Any) -> AsyncGenerator[tuple[Gateway, AsyncClient]]:
    async with running_gateway(engine="auto", **given) as gateway, gateway.client() as client:
        yield gateway, client


async def run(session: AsyncSession, *codes: str) -> None:
    for code in codes:
        job = await session.start_job(code)
        assert (await session.job(job.id, wait=WAIT)).status == "ok"


def examined(path: Path, keys: dict[str, str] | None = None) -> Audit:
    with open_archive(path) as archive:
        return audit(archive, keys)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT):
        for _ in count():
            if await check():
                break
            await asyncio.sleep(0.05)


async def becomes(session: AsyncSession, journal: str) -> None:
    async def there() -> bool:
        return (await session.refresh()).model.journal.value == journal

    await eventually(there)


async def are_signed(session: AsyncSession, proofs: int) -> None:
    async def there() -> bool:
        return (await session.proofs()).total >= proofs

    await eventually(there)


@pytest.fixture(autouse=True)
def left_shims() -> Iterator[None]:
    """Shims that one gateway left to the next are children of this process."""
    yield
    while processes.LEFT_RUNNING:
        processes.LEFT_RUNNING.pop().wait(PATIENCE)


async def test_on_demand_and_taken_away(home: Home, tmp_path: Path) -> None:
    async with a_gateway(**QUIET) as (_, client):
        session = await client.sessions.create(wait=WAIT)
        assert session.model.journal.value == "unproven"
        await run(session, "print('one')")
        proof = await session.prove()
        assert (proof.session_id, proof.attestable) == (session.id, session.model.isolated)
        assert proof.seq > 0
        assert await session.prove() == proof, "nothing happened in between"
        assert (await session.refresh()).model.journal.value == "intact"
        (key,) = await client.proof_keys()
        assert (key.id, key.signs) == (proof.key_id, True)

        await run(session, "print('two')", "print('three')")
        path = await session.export(tmp_path / "session.tar")
        found = examined(path, {key.id: key.public_key})
        assert found.is_whole
        assert found.first == 1
        assert found.proven == found.last > proof.seq, "an export is signed to its end"
        page = await session.proofs(limit=1)
        assert (page.total, page.proofs[0].seq) == (2, found.proven)
        assert (await session.proofs(limit=1, offset=1)).proofs == [proof]
        await session.close()
        assert (await session.proofs()).total == 2, "proofs outlive the session"
        assert path.stat().st_mode & 0o077 == 0


async def test_another_owners_session_has_no_proofs(home: Home, tmp_path: Path) -> None:
    async with a_gateway(**QUIET) as (gateway, client):
        session = await client.sessions.create()
        await session.close()
        with closing(sqlite3.connect(gateway.settings.state_dir / "gateway.db")) as store:
            store.execute("UPDATE sessions SET owner = 'somebody else'")
            store.commit()
        for ask in (session.prove, session.proofs, lambda: session.export(tmp_path / "x.tar")):
            with pytest.raises(NotFoundError):
                await ask()
        assert list(tmp_path.iterdir()) == [], "nothing is left of a file that failed"


async def test_an_interval_of_executions(home: Home) -> None:
    async with a_gateway(proof_executions=2, proof_bytes=0) as (_, client):
        session = await client.sessions.create(wait=WAIT)
        await run(session, "1")
        assert (await session.proofs()).total == 0
        for proofs in (1, 2):
            await run(session, "2", "3")
            await are_signed(session, proofs)
        await session.close()


async def test_an_interval_of_bytes_passes_within_a_cell(home: Home) -> None:
    async with a_gateway(proof_executions=0, proof_bytes=1 << 20) as (gateway, client):
        session = await client.sessions.create(wait=WAIT)
        wait = "import os, time\nwhile not os.path.exists('end'): time.sleep(0.01)"
        job = await session.start_job(f"print('x' * (2 << 20), flush=True)\n{wait}")
        await are_signed(session, 1)
        (gateway.state(session.id) / "workspace" / "end").touch()
        assert (await session.job(job.id, wait=WAIT)).status == "ok"
        await session.close()


async def test_an_export_ends_where_its_proof_does(home: Home, tmp_path: Path) -> None:
    """A cell may go on meanwhile."""
    async with a_gateway(**QUIET) as (gateway, client):
        session = await client.sessions.create(wait=WAIT)
        code = "import os\nwhile not os.path.exists('end'): print('x' * 99, flush=True)"
        job = await session.start_job(code)
        records = 0
        while records < 1000:
            found = examined(await session.export(tmp_path / "e.tar"))
            assert found.is_whole, found
            records = found.last
        (gateway.state(session.id) / "workspace" / "end").touch()
        assert (await session.job(job.id, wait=WAIT)).status == "ok"
        await session.close()


async def test_what_a_gateway_leaves_is_signed_and_recognised(home: Home) -> None:
    async with a_gateway() as (_, client):
        session = await client.sessions.create(wait=WAIT)
        await run(session, "print('one')")
        assert (await session.proofs()).total == 0
    async with a_gateway() as (_, client):
        session = await client.sessions.get(session.id)
        assert (await session.proofs()).total == 1
        await becomes(session, "intact")
        await session.close()


SAME = "the journal is the one that was signed"
OTHER = "the journal is not the one that was signed"
"""What the gateway logs when it has compared."""


async def kill_shim(home: Home) -> None:
    (shim,) = shims(home)
    os.kill(shim, signal.SIGKILL)
    await until(lambda: not alive(shim), "the shim's end")


async def test_a_killed_shim_left_the_same_journal(
    home: Home, tmp_path: Path, log: io.StringIO
) -> None:
    async with a_gateway(**QUIET) as (_, client):
        session = await client.sessions.create(wait=WAIT)
        await run(session, "print('one')")
        await session.prove()
        await kill_shim(home)
        await run(session, "print('two')")
        await until(lambda: SAME in log.getvalue(), "the comparison")
        assert (await session.refresh()).model.journal.value == "intact"
        assert examined(await session.export(tmp_path / "e.tar")).is_whole
        await session.close()


async def test_a_killed_shim_left_another_journal(home: Home, log: io.StringIO) -> None:
    """Changed on the disk, which the shim that had written it could not notice."""
    async with a_gateway(**QUIET) as (gateway, client):
        session = await client.sessions.create(wait=WAIT)
        await run(session, "print('one')")
        await session.prove()
        assert (await session.refresh()).model.journal.value == "intact"
        edit_body(gateway.state(session.id) / "journal")
        await kill_shim(home)
        await becomes(session, "altered")
        assert log.getvalue().count(OTHER) == 1
        await session.close()


def edit_body(journal: Path) -> None:
    """Another output, of the same length."""
    (path,) = journal.glob("*.journal")
    data = path.read_bytes()
    assert data.count(b"one\\n") == 1
    with path.open("r+b") as file:  # a shim may still have it open
        file.seek(data.index(b"one\\n"))
        file.write(b"ONE")


def edit_head(journal: Path) -> None:
    (path,) = journal.glob("*.journal")
    data = bytearray(path.read_bytes())
    data[3 * len(data) // 4 :] = data[3 * len(data) // 4 :].replace(b"SCJ1", b"SCJ2", 1)
    path.write_bytes(bytes(data))


def cut_off(journal: Path) -> None:
    """The last records, between two of them."""
    (path,) = journal.glob("*.journal")
    data, at, ends = path.read_bytes(), 0, list[int]()
    while at < len(data):
        head, at = parse(data, at)
        at += head.length if head.state is State.STORED else 0
        ends.append(at)
    os.truncate(path, ends[-4])


def cut_off_without_a_trace(journal: Path) -> None:
    """The number that was given last as well."""
    cut_off(journal)
    (journal / "newest").unlink()


def begin_anew(journal: Path) -> None:
    for path in journal.iterdir():
        path.unlink()


EDITS: list[Callable[[Path], None]] = [
    edit_body,
    edit_head,
    cut_off,
    cut_off_without_a_trace,
    begin_anew,
]


@pytest.mark.parametrize("edit", EDITS)
async def test_a_journal_that_was_changed_meanwhile(
    home: Home, tmp_path: Path, log: io.StringIO, edit: Callable[[Path], None]
) -> None:
    """It is told, an export shows where, and the session goes on."""
    async with a_gateway(**QUIET) as (gateway, client):
        session = await client.sessions.create(wait=WAIT)
        await run(session, "print('one')", "variable = 5")
        await session.prove()
        journal = gateway.state(session.id) / "journal"
    await kill_shim(home)
    edit(journal)
    async with a_gateway(**QUIET) as (_, client):
        session = await client.sessions.get(session.id)
        await becomes(session, "altered")
        assert OTHER in log.getvalue()
        await run(session, "assert variable == 5")
        found = examined(await session.export(tmp_path / "e.tar"))
        assert found.difference is not None
        await session.close()
    async with a_gateway(**QUIET) as (_, client):
        assert (await client.sessions.list(status=["terminated"]))[0].id == session.id


async def test_altered_stays_altered(home: Home) -> None:
    """Proofs that are made afterwards do not heal it."""
    async with a_gateway(**QUIET) as (gateway, client):
        session = await client.sessions.create(wait=WAIT)
        await run(session, "print('one')")
        await session.prove()
        journal = gateway.state(session.id) / "journal"
    await kill_shim(home)
    edit_body(journal)
    for _ in range(2):
        async with a_gateway() as (_, client):
            session = await client.sessions.get(session.id)
            await becomes(session, "altered")
            before = (await session.proofs()).total
            await run(session, "1")
            await session.prove()
            assert (await session.proofs()).total == before + 1
            assert (await session.refresh()).model.journal.value == "altered"
    async with a_gateway() as (_, client):
        await (await client.sessions.get(session.id)).close()


async def test_a_new_key_leaves_the_old_proofs_valid(home: Home, tmp_path: Path) -> None:
    async with a_gateway(**QUIET) as (gateway, client):
        session = await client.sessions.create(wait=WAIT)
        await run(session, "1")
        old = await session.prove()
        (gateway.settings.state_dir / KEY).unlink()
    async with a_gateway(**QUIET) as (_, client):
        session = await client.sessions.get(session.id)
        await becomes(session, "intact")
        new = await session.prove()
        assert (new.seq, new.chain) == (old.seq, old.chain)
        assert new.key_id != old.key_id
        keys = {key.id: key.signs for key in await client.proof_keys()}
        assert keys == {old.key_id: False, new.key_id: True}
        found = examined(await session.export(tmp_path / "e.tar"))
        assert (found.is_whole, len(found.confirmed)) == (True, 2)
        await session.close()


def test_a_key_that_others_can_read_stops_the_gateway(home: Home) -> None:
    home.state.mkdir(mode=0o700)
    (home.state / KEY).touch(mode=0o644)
    started = run_program(home.environ, "gateway", "--port", "0")
    assert started.returncode == 1
    assert started.stderr.startswith("error: ")
    assert "chmod 600" in started.stderr
    assert started.stderr.count("\n") == 1
    with pytest.raises(EmbeddedStartError, match="chmod 600"), Client() as embedded:
        embedded.health()
    findings = json.loads(run_program(home.environ, "doctor", "--json").stdout)["findings"]
    (found,) = [one for one in findings if one["what"] == "signing key"]
    assert (found["level"], "chmod 600" in found["text"]) == ("bad", True)
