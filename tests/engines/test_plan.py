"""The list of operations behind a bubblewrap sandbox."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sandcell_gateway.engines import bwrap_plan
from sandcell_gateway.engines.base import Limits, SandboxSpec
from sandcell_gateway.engines.bwrap_plan import Content, Directory, Link, Place, Plan, Private, Show
from sandcell_gateway.images import Image

IMAGE = Image(
    prefix=Path("/srv/app/.venv"),
    base_prefix=Path("/root/python/3.12"),
    python=Path("/root/python/3.12/bin/python3.12"),
    version=(3, 12),
    site_packages=(Path("/srv/app/.venv/lib/python3.12/site-packages"),),
    roots=(Path("/root/python/3.12"), Path("/srv/app/.venv"), Path("/usr/local/thing")),
    links=((Path("/root/python/current"), "3.12"), (Path("/bin"), "usr/bin")),
    masks=(Path("/srv/app/.venv/pip.conf"),),
)
SPEC = SandboxSpec(
    session_id="s",
    image=IMAGE,
    workspace=Path("/state/workspace"),
    environment=Path("/state/env"),
    sockets=Path("/run/k"),
    state=Path("/state/engine"),
    env={},
    uid=None,
    limits=Limits(tmp_bytes=1 << 20),
)


def plan(uid: int | None = None) -> Plan:
    return bwrap_plan.make_plan(
        replace(SPEC, uid=uid),
        ["/usr/bin/python3", "agent.py"],
        programs={"agent.py": b"print()"},
        system=[Show("/usr", "/usr"), Link("/bin", "usr/bin")],
        program=b"12345678",
    )


def words(uid: int | None = None) -> list[str]:
    return plan(uid).arguments(lambda data: 9)


def follows(words: list[str], *expected: str) -> bool:
    """Whether the words stand there one after the other."""
    size = len(expected)
    return any(tuple(words[at : at + size]) == expected for at in range(len(words)))


@pytest.mark.parametrize("uid", [None, 1_900_000_001])
def test_the_host_shows_only_software_and_the_session_s_directories(uid: int | None) -> None:
    shown = {step.source: step for step in plan(uid).operations if isinstance(step, Show)}
    assert {source for source, step in shown.items() if step.writable} == {
        "/state/workspace",
        "/state/env",
        "/run/k",
    }
    assert set(shown) == {
        *("/state/workspace", "/state/env", "/run/k"),
        *("/usr", "/root/python/3.12", "/srv/app/.venv"),
    }


def test_a_user_gets_a_user_namespace_that_has_no_other() -> None:
    assert follows(words(), "--unshare-all", "--unshare-user", "--disable-userns")
    assert follows(words(), "--uid", "1000", "--gid", "1000")
    assert "--cap-add" not in words()


def test_root_gets_none_and_keeps_what_it_needs_to_become_another() -> None:
    made = words(1_900_000_001)
    assert not {"--unshare-user", "--unshare-all", "--uid"} & set(made)
    assert {"--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"} <= set(made)
    kept = [made[at + 1] for at, word in enumerate(made) if word == "--cap-add"]
    assert kept == ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]
    assert follows(made, "--cap-drop", "ALL")


@pytest.mark.parametrize("uid", [None, 1_900_000_001])
def test_the_sandbox_does_not_end_with_its_maker(uid: int | None) -> None:
    assert "--die-with-parent" not in words(uid)
    assert {"--as-pid-1", "--new-session", "--clearenv"} <= set(words(uid))


def test_every_directory_on_the_way_is_made_first_and_open() -> None:
    made: set[str] = {"/"}
    for step in plan().operations:
        if not isinstance(step, Place):
            continue
        parent = str(Path(step.target).parent)
        within = any(Path(parent).is_relative_to(path) for path in made if path != "/")
        assert parent in made or within, step.describe()
        made.add(step.target)
        if isinstance(step, Directory):
            assert step.arguments(lambda data: 0) == ["--perms", "0755", "--dir", step.target]
    assert {"/root", "/root/python", "/srv", "/srv/app", "/run", "/etc"} <= made


def test_private_file_systems_have_a_size() -> None:
    sizes = {step.target: step.size for step in plan().operations if isinstance(step, Private)}
    assert sizes == {"/": bwrap_plan.ROOT_BYTES, "/tmp": 1 << 20, "/dev/shm": 1 << 20}
    assert follows(words(), "--perms", "1777", "--size", "1048576", "--tmpfs", "/tmp")


def test_a_private_tmp_hides_no_image_in_tmp() -> None:
    image = replace(IMAGE, roots=(Path("/tmp/venv"),))
    made = bwrap_plan.make_plan(replace(SPEC, image=image), [], programs={}, system=[], program=b"")
    targets = [step.target for step in made.operations if isinstance(step, Place)]
    assert targets.index("/tmp") < targets.index("/tmp/venv")


def test_the_root_is_closed_after_everything_is_in_place() -> None:
    made = words()
    last = max(at for at, word in enumerate(made) if "bind" in word or word in ("--dir", "--file"))
    assert last < made.index("--remount-ro")
    assert follows(made, "--remount-ro", "/dev", "--remount-ro", "/")


def test_secrets_in_the_image_are_covered_after_it_is_shown() -> None:
    steps = plan().operations
    cover = Content("/srv/app/.venv/pip.conf", b"", over=True)
    assert steps.index(Show("/srv/app/.venv", "/srv/app/.venv")) < steps.index(cover)


def test_links_of_the_image_are_kept_but_not_the_system_s() -> None:
    links = {step.target: step.to for step in plan().operations if isinstance(step, Link)}
    assert links["/root/python/current"] == "3.12"
    assert [step for step in plan().operations if isinstance(step, Link)].count(
        Link("/bin", "usr/bin")
    ) == 1


def test_the_user_database_knows_the_session() -> None:
    files = {
        s.target: s.data.decode() for s in plan(4_000_123).operations if isinstance(s, Content)
    }
    assert files["/etc/passwd"].startswith("sandbox:x:4000123:4000123:")
    assert ":/workspace:" in files["/etc/passwd"]
    assert "root" not in files["/etc/passwd"]
    assert "/etc/resolv.conf" not in files


def test_a_plan_describes_itself() -> None:
    text = plan().describe()
    assert "show /usr read-only" in text
    assert "show /workspace (from /state/workspace) writable" in text
    assert "make /tmp private, 1048576 bytes, mode 1777" in text
    assert "cover /srv/app/.venv/pip.conf" in text
    assert text.splitlines()[-1] == "run /usr/bin/python3 agent.py"
    assert len(text.splitlines()) == len(plan().operations) + 1


def test_the_system_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib").mkdir()
    steps = bwrap_plan.system_operations(tmp_path)
    assert Link("/bin", "usr/bin") in steps
    assert Show("/lib", "/lib") in steps
    assert not [s for s in steps if isinstance(s, Place) and s.target in ("/sbin", "/lib64")]
    optional = [s for s in steps if isinstance(s, Show) and s.optional]
    assert {"/etc/ssl/certs", "/etc/localtime"} <= {s.target for s in optional}
    assert not {"/etc", "/etc/passwd", "/etc/ssl"} & {s.target for s in optional}
