"""Guests together: each is weighed, and a number that is arithmetic says so."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.measure import machine_density
from labkit.measure.machine_density import MachineDensity, machine_sizes, measure_machine_density
from labkit.vm.micro import micro_spec
from tests.support import requires


@requires("vm", "program:busybox")
@pytest.mark.timeout(240)
def test_two_guests_weigh_twice_as_much_as_one_and_the_rest_is_arithmetic() -> None:
    density = measure_machine_density((1, 2), memory_mib=96)
    one, two = density.rows
    assert (one.count, two.count, len(two.proportional_bytes)) == (1, 2, 2)
    assert 16 << 20 < two.each_bytes < one.each_bytes * 1.1
    assert sum(two.proportional_bytes) > 1.5 * one.each_bytes
    assert density.is_extrapolated
    assert density.fit > 2
    assert density.fit * two.each_bytes < 0.8 * density.host.memory_bytes
    assert MachineDensity.from_json(density.to_json()) == density


@pytest.mark.parametrize("counts", [(), (0, 1), (2, 1), (1, 1), (1, 1000)])
def test_counts_that_cannot_be_are_refused(counts: Sequence[int]) -> None:
    with pytest.raises(InvalidSpec, match="numbers of guests must rise"):
        measure_machine_density(counts)


@requires("vm", "program:busybox")
@pytest.mark.timeout(240)
def test_a_full_machine_gets_no_more_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = machine_density.host_facts().memory_bytes
    left = [memory, memory, 0.21 * memory, 0.21 * memory]
    monkeypatch.setattr(machine_density, "available_bytes", lambda: left.pop(0) if len(left) > 1 else left[0])
    density = measure_machine_density((1, 2, 4), memory_mib=512)
    assert [row.count for row in density.rows] == [1, 1][: len(density.rows)]
    assert (density.fit, density.is_extrapolated) == (1, False)
    monkeypatch.setattr(machine_density, "available_bytes", lambda: 0)
    with pytest.raises(FeatureMissing, match="taken already"):
        measure_machine_density((1,))


@requires("vm", "program:busybox", "program:du")
def test_sizes_are_those_of_the_files() -> None:
    sizes = {size.name: size.size_bytes for size in machine_sizes()}
    assert sizes["process"] < sizes["microvm"] < sizes["vm-hostroot"]
    spec = micro_spec()
    said = subprocess.run(["du", "--block-size=1", spec.kernel], capture_output=True, text=True, check=True).stdout
    assert sizes["microvm"] == int(said.split()[0]) + len(spec.initramfs)
