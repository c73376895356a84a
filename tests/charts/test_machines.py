"""The pictures of a boot and of a machine's costs: phases one after another, bars from zero, titles that say the finding."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labkit.charts import figure, machines
from labkit.measure.hostfacts import host_facts
from labkit.measure.machine_costs import MachineCosts, MachineLoad
from labkit.measure.machine_density import MachineDensity, MachineSize, Together
from labkit.vm.timeline import Phase

PHASES = (Phase("QEMU", 0.0, 0.1), Phase("firmware", 0.1, 0.1), Phase("kernel", 0.2, 0.7), Phase("init", 0.9, 0.1))


@pytest.fixture
def costs() -> MachineCosts:
    loads = (
        MachineLoad("cpu", "computing", (100.0, 110.0), (900.0, 1100.0)),
        MachineLoad("syscalls", "system calls", (50.0, 50.0), (200.0, 200.0)),
    )
    return MachineCosts(host_facts(), "software emulation (x)", 128 << 20, 150 << 20, 50 << 20, 2 << 20, 2 << 20, loads)


def test_the_phases_of_a_boot_lie_end_to_end_and_the_title_names_the_longest() -> None:
    drawn, (axes,) = figure(8, 2.4)
    machines.draw_boot(axes, PHASES)
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert [pytest.approx(x) for x, _ in bars] == [0, 0.1, 0.2, 0.9]
    assert sum(width for _, width in bars) == pytest.approx(1.0)
    assert axes.get_title(loc="left") == "Ready after 1.00 s; most of it: kernel"
    drawn.clear()


def test_words_say_what_the_picture_shows() -> None:
    assert machines.boot_words(PHASES) == "QEMU 0.10 s, firmware 0.10 s, kernel 0.70 s, init 0.10 s"


def test_costs_are_bars_from_zero_with_their_finding(costs: MachineCosts) -> None:
    drawn, (left, right) = figure(9, 2.6, columns=2)
    machines.draw_memory(left, costs)
    machines.draw_loads(right, costs)
    assert left.get_title(loc="left") == "An idle guest takes 150 MiB"
    assert right.get_title(loc="left") == "In the guest (software emulation): computing 9.5 × and system calls 4.0 ×"
    assert left.get_xlim()[0] == right.get_xlim()[0] == 0
    drawn.clear()


def test_machines_together_sizes_and_how_many_fit_say_what_was_computed() -> None:
    rows = (Together(1, (100 << 20,), 100 << 20), Together(2, (90 << 20, 92 << 20), 190 << 20))
    found = MachineDensity(host_facts(), "software emulation (x)", 128 << 20, 8 << 30, rows, was_full=False)
    drawn, (left, middle, right) = figure(12, 2.6, columns=3)
    machines.draw_together(left, found)
    machines.draw_fit(middle, found, 1 << 20)
    sizes = (MachineSize("process", "program", 1 << 20), MachineSize("microvm", "micro VM", 40 << 20))
    machines.draw_sizes(right, sizes)
    assert left.get_title(loc="left") == "Each of 2 takes 91 MiB: little is shared"
    assert [text.get_text() for text in middle.get_yticklabels()] == [
        "micro VMs (computed from 2)",
        "containers (computed from one)",
    ]
    assert middle.get_title(loc="left") == "In the room of one machine: 91 containers"
    assert right.get_title(loc="left") == "The largest is 40 times the program"
    assert left.get_ylim()[0] == middle.get_xlim()[0] == right.get_xlim()[0] == 0
    drawn.clear()


def test_a_container_stands_between_host_and_guest_where_there_was_one(costs: MachineCosts) -> None:
    loads = tuple(replace(load, container_ms=(55.0, 56.0)) for load in costs.loads)
    drawn, (axes,) = figure(9, 2.6)
    machines.draw_loads(axes, replace(costs, loads=loads))
    assert sum("in a container" in text.get_text() for text in axes.get_yticklabels()) == 2
    drawn.clear()
