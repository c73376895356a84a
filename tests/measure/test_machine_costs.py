"""What a machine costs: given and used memory, sizes, loads; the result can be kept."""

from __future__ import annotations

import pytest

from labkit.errors import InvalidSpec
from labkit.measure.machine_costs import LOADS, MachineCosts, measure_machine
from tests.support import requires


@requires("vm", "userns", "program:busybox")
@pytest.mark.timeout(240)
def test_a_guest_is_weighed_and_its_loads_take_time_in_both_places() -> None:
    costs = measure_machine(1, memory_mib=96)
    assert costs.given_bytes == 96 << 20
    assert 16 << 20 < costs.used_bytes < 1 << 30
    assert costs.kernel_bytes > costs.program_bytes > 100_000
    assert [load.name for load in costs.loads] == [name for name, _, _ in LOADS]
    assert all(len(load.process_ms) == len(load.machine_ms) == len(load.container_ms) == 1 for load in costs.loads)
    assert all(load.ratio > 0 and load.container_ratio > 0 for load in costs.loads)
    assert costs.fit == int(0.8 * costs.host.memory_bytes / costs.used_bytes)
    assert MachineCosts.from_json(costs.to_json()) == costs


def test_no_run_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="0 runs tell nothing"):
        measure_machine(0)
