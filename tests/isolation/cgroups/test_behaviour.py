"""The limits at work on hogs that are bounded in time and size."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from labkit.errors import InvalidState
from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits
from tests.support import requires

from .helpers import BURN, SLEEP, favour, running, wait_until

pytestmark = requires("cgroups")
MIB = 1 << 20


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that /proc, not the cgroup, has counted for a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_quarter_of_a_cpu_is_what_a_cpu_hog_gets(parent: CgroupParent) -> None:
    quota_usec = 25_000
    with Cgroup.create(parent, Limits(cpus=0.25)) as group, running(group, BURN) as hog:
        favour(group)
        used_s, before, began_s = cpu_seconds(hog.pid), group.stats(), time.monotonic()
        wait_until(lambda: (group.stats().nr_throttled or 0) >= 10, timeout_s=20)
        stats, now_used_s, elapsed_s = group.stats(), cpu_seconds(hog.pid), time.monotonic() - began_s
    used_usec = (stats.cpu_usage_usec or 0) - (before.cpu_usage_usec or 0)
    # Every throttled period has used up its quota, and no period gets more; a busy machine cannot change that.
    assert used_usec > 0.8 * quota_usec * (stats.nr_throttled or 0) - quota_usec
    assert used_usec < 1.3 * quota_usec * ((stats.nr_periods or 0) + 1)
    assert used_usec / elapsed_s < 0.36e6
    assert (now_used_s - used_s) == pytest.approx(used_usec / 1e6, abs=0.08)
    assert (stats.throttled_usec or 0) > 0


def test_a_limit_changed_while_it_runs_takes_effect(parent: CgroupParent) -> None:
    def throttled_in(seconds: float) -> int:
        before = group.stats().nr_throttled or 0
        time.sleep(seconds)
        return (group.stats().nr_throttled or 0) - before

    with Cgroup.create(parent, Limits()) as group, running(group, BURN):
        favour(group)
        assert throttled_in(0.3) == 0
        group.set(Limits(cpus=0.05))
        wait_until(lambda: throttled_in(0.1) > 0)
        group.set(Limits())
        throttled_in(0.1)  # the last limited period ends
        assert throttled_in(0.3) == 0


def test_weights_of_100_and_300_share_one_cpu_one_to_three(parent: CgroupParent) -> None:
    pinned = f"import os\nos.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n{BURN}"
    with (
        Cgroup.create(parent, Limits(cpu_weight=100)) as light,
        Cgroup.create(parent, Limits(cpu_weight=300)) as heavy,
        running(light, pinned),
        running(heavy, pinned),
    ):
        favour(light)
        # Both must have begun to burn: in an emulated machine Python alone takes longer to start than the other needs to win.
        wait_until(lambda: min(group.stats().cpu_usage_usec or 0 for group in (light, heavy)) > 0.6e6)
        before = [group.stats().cpu_usage_usec or 0 for group in (light, heavy)]
        # On a busy machine both may wait for others; the ratio means something once they have shared 1.2 s.
        wait_until(lambda: sum(group.stats().cpu_usage_usec or 0 for group in (light, heavy)) - sum(before) > 1.2e6)
        after = [group.stats().cpu_usage_usec or 0 for group in (light, heavy)]
    small, large = (b - a for a, b in zip(before, after, strict=True))
    assert 2.2 < large / small < 4.0


def test_a_memory_hog_is_killed_at_its_limit_and_counted(parent: CgroupParent) -> None:
    with Cgroup.create(parent, Limits(memory_bytes=32 * MIB, swap_bytes=0)) as group:
        with running(group, "x = bytearray(96 << 20)") as hog:
            assert hog.wait(timeout=20) == -9
        stats = group.stats()
        assert stats.oom_kills == 1
        assert stats.memory_peak_bytes is None or 24 * MIB < stats.memory_peak_bytes <= 32 * MIB


def test_a_fork_bomb_stops_at_its_limit_and_is_counted(parent: CgroupParent) -> None:
    bomb = """
import os, time
for _ in range(60):
    try:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    except BlockingIOError:
        pass
time.sleep(20)
"""
    with Cgroup.create(parent, Limits(pids=10)) as group, running(group, bomb):
        wait_until(lambda: (group.stats().pids_limit_hits or 0) > 0)
        assert group.stats().pids == 10
        assert len(group.procs()) == 10


def test_frozen_means_no_progress_and_thawed_goes_on(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group, running(group, BURN) as hog:
        group.freeze()
        assert group.is_frozen and group.events.frozen
        stopped_s = cpu_seconds(hog.pid)
        time.sleep(0.3)
        assert cpu_seconds(hog.pid) == stopped_s
        group.thaw()
        assert not group.is_frozen
        wait_until(lambda: cpu_seconds(hog.pid) > stopped_s)


def test_a_frozen_group_can_be_killed_and_deleted(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group, running(group, SLEEP) as child:
        group.freeze()
        group.kill()
        assert child.wait(timeout=5) == -9
        group.wait_empty(5)


def test_a_group_that_is_frozen_when_its_owner_leaves_is_deleted_all_the_same(parent: CgroupParent) -> None:
    group = Cgroup.create(parent)
    with running(group, SLEEP) as child:
        group.freeze()
        group.delete()
        assert child.wait(timeout=5) == -9


def test_a_process_cannot_freeze_the_group_it_is_in(parent: CgroupParent) -> None:
    with Cgroup.create(parent) as group, running(group, SLEEP):
        own = [os.getpid()]
        group.procs = lambda: own  # type: ignore[method-assign]
        with pytest.raises(InvalidState, match="never thaw itself"):
            group.freeze()


def test_kill_ends_a_whole_family_that_ignores_sigterm(parent: CgroupParent) -> None:
    family = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        break
time.sleep(20)
"""
    with Cgroup.create(parent) as group, running(group, family):
        wait_until(lambda: len(group.procs()) == 6)
        group.kill()
        group.wait_empty(5)
        assert group.procs() == []


def test_kill_wins_against_a_fork_bomb(parent: CgroupParent) -> None:
    bomb = "import os, time\nend = time.monotonic() + 20\nwhile time.monotonic() < end:\n try: os.fork()\n except OSError: pass"
    group = Cgroup.create(parent, Limits(pids=60, cpus=0.8))
    with running(group, bomb):
        wait_until(lambda: len(group.procs()) > 40)
        began_s = time.monotonic()
        group.delete()
        assert time.monotonic() - began_s < 15


def test_pressure_rises_while_a_hog_is_throttled(parent: CgroupParent) -> None:
    if not Path("/proc/pressure/cpu").exists():
        pytest.skip("this kernel keeps no pressure")
    with Cgroup.create(parent, Limits(cpus=0.1)) as group, running(group, BURN):
        favour(group)
        if "unified" not in group.folders:
            pytest.skip("v1 keeps no pressure for a group")
        before_usec = group.pressure("cpu").some.total_usec
        time.sleep(0.6)
        assert group.pressure("cpu").some.total_usec - before_usec > 150_000


def test_reading_from_a_disk_is_slowed_to_its_limit_and_counted(parent: CgroupParent, tmp_path: Path) -> None:
    if "io" not in parent.controllers:
        pytest.skip(parent.missing_controllers["io"])
    folder = next((path for path in (Path("/mnt/disk"), Path("/var/tmp")) if _on_disk(path)), None)
    if folder is None:
        pytest.skip("no writable folder on a disk was found")
    data = folder / f"labkit-test-{os.getpid()}"
    data.write_bytes(os.urandom(2 * MIB))
    try:
        _check_slow_read(parent, data)
    finally:
        data.unlink()


def _on_disk(path: Path) -> bool:
    if not os.access(path, os.W_OK):
        return False
    device = path.stat().st_dev
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists()


def _check_slow_read(parent: CgroupParent, data: Path) -> None:
    read = f"""
import mmap, os
fd = os.open({str(data)!r}, os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 65536)
while os.readv(fd, [buffer]) > 0: pass
"""
    fd = os.open(data, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    with Cgroup.create(parent, Limits(io_read_bytes_per_s=2 * MIB, io_path=str(data))) as group:
        began_s = time.monotonic()
        with running(group, read) as reader:
            assert reader.wait(timeout=20) == 0
        assert time.monotonic() - began_s > 0.6
        assert (group.stats().io_read_bytes or 0) >= 2 * MIB
