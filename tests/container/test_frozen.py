"""A frozen container can be closed, and a closed one can still be asked how it is."""

from __future__ import annotations

import time
from pathlib import Path

from labkit.container import Container, Limits, Namespaced
from labkit.linux.constants import NS
from tests.support import requires
from tests.support.cli import wait_until


@requires("userns")
def test_a_closed_process_is_ended() -> None:
    process = Namespaced(["sleep", "60"], namespaces=NS.UTS)
    process.start()
    assert process.status == "running"
    process.close()
    assert process.status == "ended"


@requires("userns", "cgroups")
def test_a_frozen_container_is_closed_and_leaves_no_group() -> None:
    with Container(["sleep", "60"], image_like_host=True, limits=Limits(pids=8)) as container:
        container.start()
        assert container.cgroup is not None
        container.cgroup.freeze()
        folder = next(iter(container.cgroup.folders.values()))
        assert folder.exists() and container.status == "running"
    assert not folder.exists() and container.status == "ended"


@requires("userns", "cgroups")
def test_a_container_that_forks_all_the_time_is_frozen_as_a_whole() -> None:
    forker = "while :; do sleep 0.001 & sleep 0.001 & wait; done"
    with Container(
        ["sh", "-c", f"({forker}) & ({forker}) & wait"], image_like_host=True, limits=Limits(pids=40)
    ) as container:
        container.start()
        assert container.cgroup is not None
        folder = container.cgroup.folders["pids"]
        # The shell has begun, but perhaps not forked yet.
        assert wait_until(lambda: len((folder / "cgroup.procs").read_text().split()) >= 4)
        container.cgroup.freeze()
        # The scheduler's own account of each process, not the group's: it stands still.
        pids = (folder / "cgroup.procs").read_text().split()
        assert len(pids) >= 2
        before = [Path(f"/proc/{pid}/schedstat").read_text() for pid in pids]
        time.sleep(0.1)
        assert (folder / "cgroup.procs").read_text().split() == pids
        assert [Path(f"/proc/{pid}/schedstat").read_text() for pid in pids] == before
