"""A limit on disk traffic is felt by direct writes, and nothing is left of them."""

from __future__ import annotations

from pathlib import Path

from labkit.doctor import examine
from labkit.isolation.cgroups import Limits
from labkit.measure.diskwrite import seconds_to_write
from labkit.units import MiB
from tests.support import requires


@requires("cgroups")
def test_a_limit_slows_a_direct_write() -> None:
    before = set(Path("/var/tmp").glob("labkit-*"))
    if examine()["cgroup io"].state == "no":
        return  # this machine's root lies on no disk that can be limited
    free_s = seconds_to_write(MiB, Limits())
    limited_s = seconds_to_write(MiB, Limits(io_write_bytes_per_s=MiB))
    assert free_s < 0.5 < limited_s < 5
    assert set(Path("/var/tmp").glob("labkit-*")) <= before
