"""Where control groups are found, from what kinds of machines show of themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandcell_gateway.engines import cgroups
from sandcell_gateway.engines.base import Limits
from sandcell_gateway.engines.cgroups import ControlGroup, Home, find_homes

V2 = "29 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "\n".join(
    f"3{n} 23 0:3{n} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"
    for n, name in enumerate(("memory", "pids", "cpu,cpuacct", "freezer"))
)
HYBRID = f"{V1}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def test_version_2_has_one_directory_for_all() -> None:
    homes = find_homes(V2, "0::/user.slice/user-1000.slice/x.scope\n")
    directory = Path("/sys/fs/cgroup/user.slice/user-1000.slice/x.scope")
    assert homes == dict.fromkeys(cgroups.CONTROLS, Home(directory, 2))


def test_the_gateway_s_own_leaf_is_left_out() -> None:
    homes = find_homes(V2, f"0::/system.slice/sandcell.service/{cgroups.OUR_LEAF}\n")
    assert {home.directory.name for home in homes.values()} == {"sandcell.service"}


def test_version_1_has_a_directory_for_each() -> None:
    homes = find_homes(V1, "4:memory:/a\n3:pids:/b\n2:cpu,cpuacct:/c\n1:freezer:/\n")
    assert {control: str(home.directory) for control, home in homes.items()} == {
        "memory": "/sys/fs/cgroup/memory/a",
        "pids": "/sys/fs/cgroup/pids/b",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/c",
        "freezer": "/sys/fs/cgroup/freezer",
    }
    assert {home.version for home in homes.values()} == {1}


def test_with_both_version_2_freezes_and_version_1_limits() -> None:
    homes = find_homes(HYBRID, "4:memory:/a\n3:pids:/\n2:cpu,cpuacct:/\n1:freezer:/\n0::/u\n")
    assert homes["freezer"] == Home(Path("/sys/fs/cgroup/unified/u"), 2)
    assert homes["memory"] == Home(Path("/sys/fs/cgroup/memory/a"), 1)


def test_a_container_s_mount_shows_only_what_is_below_its_group() -> None:
    mount = "29 24 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
    assert find_homes(mount, "0::/docker/abc\n")["memory"].directory == Path("/sys/fs/cgroup")
    assert find_homes(mount, "0::/elsewhere\n") == {}


def test_a_mount_point_with_spaces_is_read() -> None:
    mount = "29 24 0:26 / /my\\040groups rw - cgroup2 cgroup2 rw\n"
    assert find_homes(mount, "0::/\n")["pids"].directory == Path("/my groups")


def test_a_stored_group_that_is_gone_has_no_controls(tmp_path: Path) -> None:
    group = ControlGroup({"memory": Home(tmp_path, 1), "pids": Home(tmp_path / "gone", 1)})
    found = ControlGroup.from_json(group.as_json())
    assert found.controls == {"memory"}


def test_without_any_controls_nothing_fails() -> None:
    group = ControlGroup({})
    group.add(os.getpid())
    group.thaw()
    assert (group.memory(), group.memory_kills(), group.controls) == (None, 0, frozenset())


@pytest.mark.parametrize("version", [1, 2])
def test_limits_are_written_as_each_version_wants_them(tmp_path: Path, version: int) -> None:
    """The kernel's files are plain files here; what they mean is tried by the contract suite."""
    limits = Limits(memory_bytes=1 << 30, cpus=1.5, processes=99)
    written: dict[str, str] = {}
    homes = {control: Home(tmp_path / control, version) for control in ("memory", "cpu", "pids")}
    for home in homes.values():
        home.directory.mkdir()
    group = ControlGroup(homes)
    for control in homes:
        assert group.limit(control, limits)
    for path in tmp_path.glob("*/*"):
        written[path.name] = path.read_text()
    common = {"pids.max": "99"}
    assert written == common | (
        {"memory.max": str(1 << 30), "memory.swap.max": "0", "cpu.max": "150000 100000"}
        if version == 2
        else {
            "memory.limit_in_bytes": str(1 << 30),
            "memory.memsw.limit_in_bytes": str(1 << 30),
            "cpu.cfs_period_us": "100000",
            "cpu.cfs_quota_us": "150000",
        }
    )


def test_the_machine_s_memory_is_the_bound() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < cgroups.memory_bound() <= total
