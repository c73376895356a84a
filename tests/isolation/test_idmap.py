"""Id maps: which ids a container gets, compared with the kernel's own files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.isolation.idmap import (
    CONTAINER_IDS,
    HIGH_RANGE_START,
    IdMapping,
    IdMaps,
    container_maps,
    own_maps,
    subordinate_ranges,
    user_maps,
)
from labkit.linux.proc import parse_id_map
from tests.support import in_child, requires

WHOLE = (IdMapping(0, 0, 4_294_967_295),)
ids = st.integers(min_value=0, max_value=2**32 - 1)


@given(st.lists(st.tuples(ids, ids, ids), max_size=5))
def test_a_map_survives_being_written_and_read(rows: list[tuple[int, int, int]]) -> None:
    maps = tuple(IdMapping(*row) for row in rows)
    assert parse_id_map("\n".join(map(str, maps))) == maps


def test_own_maps_are_those_of_proc() -> None:
    maps = own_maps()
    lines = Path("/proc/self/uid_map").read_text().split()
    assert [number for m in maps.uids for number in (m.inside, m.outside, m.count)] == [int(word) for word in lines]


def test_root_s_containers_get_a_high_range_that_owns_nothing() -> None:
    maps = container_maps(IdMaps(WHOLE, WHOLE))
    assert maps.uids == (IdMapping(0, HIGH_RANGE_START, CONTAINER_IDS),)
    assert maps.shifted


@given(st.integers(1, 1000), st.integers(1, 100_000), st.integers(1, 65_536))
def test_without_the_high_range_the_ids_stay_and_lines_are_kept(uid: int, start: int, count: int) -> None:
    own = (IdMapping(0, uid, 1), IdMapping(1, start, count))
    maps = container_maps(IdMaps(own, own))
    assert maps.uids == (IdMapping(0, 0, 1), IdMapping(1, 1, count))
    assert not maps.shifted


def test_subordinate_ranges_are_found_by_name_and_by_number(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("# comment\nada:100000:65536\n1001:300000:10\nada:500000:7\nbroken line\n")
    assert subordinate_ranges(file, "ada", 4242) == ((100000, 65536), (500000, 7))
    assert subordinate_ranges(file, "bob", 1001) == ((300000, 10),)
    assert subordinate_ranges(tmp_path / "none", "ada", 1) == ()


@requires("user", "subuid")
def test_a_user_with_a_range_gets_it_through_newuidmap() -> None:
    maps, with_helpers = user_maps()
    assert with_helpers
    assert maps.uids[0] == IdMapping(0, os.getuid(), 1)
    assert maps.uids[1].count > 1000


@requires("user", "no-subuid")
def test_a_user_without_a_range_gets_one_id_and_no_setgroups() -> None:
    maps, with_helpers = user_maps()
    assert (maps.uids, maps.setgroups, with_helpers) == ((IdMapping(0, os.getuid(), 1),), False, False)


@requires("userns", "root")
def test_a_written_map_is_what_the_kernel_shows() -> None:
    def body() -> list[str]:
        import os
        import signal
        from pathlib import Path

        from labkit.isolation.idmap import IdMapping, IdMaps, write_maps
        from labkit.linux.constants import NS
        from labkit.linux.syscalls import clone3

        pid, pidfd = clone3(NS.USER, exit_signal=signal.SIGCHLD)
        if pid == 0:
            signal.pause()
            os._exit(0)
        line = (IdMapping(0, 0x7000_0000, 65536),)
        write_maps(pid, IdMaps(line, line))
        shown = Path(f"/proc/{pid}/uid_map").read_text().split()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)
        return shown

    assert in_child(body) == ["0", str(0x7000_0000), "65536"]


def test_the_module_s_constants_stay_clear_of_distribution_ranges() -> None:
    login_defs = Path("/etc/login.defs")
    if not login_defs.exists():
        pytest.skip("/etc/login.defs is not there")
    printed = subprocess.run(["grep", "-E", "^SUB_UID_MAX", str(login_defs)], capture_output=True, text=True).stdout
    assert int(printed.split()[1] if printed else 600_100_000) < HIGH_RANGE_START
