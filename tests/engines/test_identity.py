"""Names for processes, and users for sessions."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sandcell_gateway.identity import (
    IdentityError,
    ProcessRef,
    boot_id,
    pick_uid,
    process_stat,
    require_uid,
    start_time,
)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        yield sleeping
        sleeping.kill()


def test_a_process_is_found_again(process: subprocess.Popen[bytes]) -> None:
    ref = ProcessRef.capture(process.pid)
    assert ProcessRef.from_json(ref.as_json()) == ref
    assert ref.alive()
    assert ref.boot_id == boot_id()
    assert process_stat(process.pid).parent == os.getpid()


def test_a_pid_of_another_process_or_boot_is_not_meant(process: subprocess.Popen[bytes]) -> None:
    ref = ProcessRef.capture(process.pid)
    for other in (
        replace(ref, start_time=ref.start_time - 1),
        replace(ref, boot_id="another"),
        replace(ref, pid=0),
        replace(ref, pid=-1),
    ):
        assert not other.alive()
        assert other.kill() is False
        with pytest.raises(ProcessLookupError):
            other.open()
    assert process.poll() is None


async def test_the_end_is_waited_for_by_several(process: subprocess.Popen[bytes]) -> None:
    ref = ProcessRef.capture(process.pid)
    waiting = [asyncio.create_task(ref.wait(10)) for _ in range(3)]
    await asyncio.sleep(0)
    assert ref.kill(signal.SIGTERM) is True
    await asyncio.gather(*waiting)
    assert not ref.alive()  # a zombie until its parent has waited
    process.wait()
    await ref.wait()
    assert ref.kill() is False


async def test_a_wait_has_an_end(process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(TimeoutError):
        await ProcessRef.capture(process.pid).wait(0.01)


def test_no_descriptor_is_left(process: subprocess.Popen[bytes]) -> None:
    ref = ProcessRef.capture(process.pid)
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    ref.alive()
    replace(ref, start_time=1).alive()
    ref.kill(0)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_a_missing_process_is_said_to_be_missing() -> None:
    with pytest.raises(ProcessLookupError):
        start_time(1 << 30)


def test_a_name_may_look_like_fields() -> None:
    """/proc/PID/stat holds the command's name, which may hold anything."""
    code = "import ctypes, time; ctypes.CDLL(None).prctl(15, b') R 1 2 3'); print(flush=True)"
    argv = ["python3", "-c", f"{code}; time.sleep(600)"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as named:
        assert named.stdout is not None
        named.stdout.readline()
        assert process_stat(named.pid).parent == os.getpid()
        named.kill()


@pytest.mark.root
def test_root_gets_users_that_nobody_is() -> None:
    uids = {pick_uid(()) for _ in range(50)}
    assert len(uids) == 50
    for uid in uids:
        assert uid is not None
        assert require_uid(uid) == uid
        with pytest.raises(KeyError):
            pwd.getpwuid(uid)


@pytest.mark.root
@pytest.mark.parametrize("uid", [None, -1, 0, 1, 1000, 65534])
def test_root_never_runs_a_session_as_itself_or_as_somebody(uid: int | None) -> None:
    with pytest.raises(IdentityError):
        require_uid(uid)


@pytest.mark.root
def test_no_uid_is_left() -> None:
    class Everything:
        def __contains__(self, uid: object) -> bool:
            return True

    with pytest.raises(IdentityError, match="no free uid"):
        pick_uid(Everything())


@pytest.mark.not_root
def test_a_user_has_only_one_identity() -> None:
    assert pick_uid(()) is None
    assert require_uid(None) is None
    with pytest.raises(IdentityError, match="only root"):
        require_uid(1_900_000_000)
