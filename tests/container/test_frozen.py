"""A frozen container can be closed, and a closed one can still be asked how it is."""

from __future__ import annotations

from labkit.container import Container, Limits, Namespaced
from labkit.linux.constants import NS
from tests.support import requires


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
