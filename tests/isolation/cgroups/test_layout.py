from __future__ import annotations

import pytest

from labkit.isolation.cgroups import read_layout
from labkit.isolation.cgroups.layout import CONTROLLERS, parse_layout
from tests.support.hierarchies import mounted_hierarchies

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "34 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_BLKIO = "35 30 0:31 / /sys/fs/cgroup/blkio rw,nosuid shared:9 - cgroup cgroup rw,blkio"
V1_NAMED = "36 30 0:32 / /sys/fs/cgroup/systemd rw,nosuid shared:9 - cgroup cgroup rw,xattr,name=systemd"
UNIFIED = "31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw"


def test_a_debian_of_today_has_one_tree() -> None:
    layout = parse_layout(V2, "0::/user.slice/user-1000.slice/session-3.scope\n")
    assert layout.version == "v2"
    assert layout.unified is not None
    assert layout.unified.own == "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope"


def test_controllers_mounted_together_are_one_hierarchy() -> None:
    layout = parse_layout(V1_CPU, "4:cpu,cpuacct:/a\n")
    assert layout.version == "v1"
    assert layout.hierarchy_of("cpu") == layout.hierarchy_of("cpuacct")
    assert layout.hierarchies[0].own == "/sys/fs/cgroup/cpu,cpuacct/a"


def test_the_order_of_names_in_proc_does_not_matter() -> None:
    assert parse_layout(V1_CPU, "4:cpuacct,cpu:/a\n").hierarchies[0].own == "/sys/fs/cgroup/cpu,cpuacct/a"


def test_v1_controllers_beside_a_v2_tree_are_hybrid_and_named_hierarchies_do_not_count() -> None:
    layout = parse_layout(
        "\n".join((V1_NAMED, V1_BLKIO, UNIFIED)), "5:blkio:/\n1:name=systemd:/init.scope\n0::/init.scope\n"
    )
    assert layout.version == "hybrid"
    assert {h.mount.rsplit("/", 1)[1] for h in layout.hierarchies} == {"blkio", "unified"}


def test_blkio_of_v1_is_called_io() -> None:
    assert parse_layout(V1_BLKIO, "5:blkio:/\n").hierarchy_of("io") is not None


def test_the_top_of_a_hierarchy_has_no_trailing_slash() -> None:
    assert parse_layout(V1_BLKIO, "5:blkio:/\n").hierarchies[0].own == "/sys/fs/cgroup/blkio"


def test_a_mount_that_shows_only_the_containers_own_part_is_followed() -> None:
    mount = V1_BLKIO.replace(" / /sys", " /docker/abc /sys")
    assert parse_layout(mount, "5:blkio:/docker/abc\n").hierarchies[0].own == "/sys/fs/cgroup/blkio"
    assert parse_layout(mount, "5:blkio:/docker/abc/x\n").hierarchies[0].own == "/sys/fs/cgroup/blkio/x"
    assert parse_layout(mount, "5:blkio:/docker/abcd\n").hierarchies[0].own is None


def test_a_process_outside_its_cgroup_namespace_has_no_visible_folder() -> None:
    assert parse_layout(V2, "0::/../other\n").hierarchies[0].own is None


def test_a_later_mount_at_the_same_place_hides_the_earlier_one() -> None:
    hidden = V2.replace(" - cgroup2 cgroup2", " - tmpfs none")
    assert parse_layout(f"{V2}\n{hidden}", "0::/\n").hierarchies == ()


def test_of_two_mounts_the_one_that_shows_the_own_folder_is_taken() -> None:
    narrow = V2.replace("0:26 / /sys/fs/cgroup", "0:26 /elsewhere /mnt/part")
    layout = parse_layout(f"{narrow}\n{V2}", "0::/here\n")
    assert layout.unified is not None and layout.unified.own == "/sys/fs/cgroup/here"


def test_blanks_in_a_mount_point_are_unescaped() -> None:
    layout = parse_layout(V2.replace("/sys/fs/cgroup ", "/mnt/my\\040groups "), "0::/\n")
    assert layout.hierarchies[0].mount == "/mnt/my groups"


@pytest.mark.skipif(not mounted_hierarchies(), reason="no cgroup hierarchy is mounted here")
def test_this_machine_is_read_as_an_independent_reader_reads_it() -> None:
    expected = {
        (h.version, h.mount, h.own) for h in mounted_hierarchies() if h.version == 2 or _labkit_knows(h.controllers)
    }
    assert {(h.version, h.mount, h.own) for h in read_layout().hierarchies} == expected


def _labkit_knows(controllers: tuple[str, ...]) -> bool:
    return bool({"io" if name == "blkio" else name for name in controllers} & set(CONTROLLERS))
