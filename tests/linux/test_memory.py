from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.linux.memory import PressureLine, parse_meminfo, parse_pressure_line, read_meminfo, read_pressure
from tests.support import requires


def test_the_machines_memory_agrees_with_psutil() -> None:
    memory, witness, swap = read_meminfo(), psutil.virtual_memory(), psutil.swap_memory()
    assert memory.total_bytes == witness.total
    assert memory.available_bytes == pytest.approx(witness.available, rel=0.1)
    assert memory.free_bytes == pytest.approx(witness.free, rel=0.2)
    assert memory.shared_bytes == pytest.approx(witness.shared, rel=0.2, abs=2**22)
    assert memory.swap_total_bytes == swap.total


def test_a_field_without_a_unit_is_no_size() -> None:
    keys = ("MemTotal", "MemFree", "MemAvailable", "Cached", "Shmem", "SwapTotal", "SwapFree")
    text = "".join(f"{key}:  {number} kB\n" for number, key in enumerate(keys, 1)) + "HugePages_Total:    5\n"
    memory = parse_meminfo(text)
    assert (memory.total_bytes, memory.swap_free_bytes) == (1024, 7 * 1024)


hundredths = st.integers(0, 10_000).map(lambda number: number / 100)


@given(
    st.sampled_from(["some", "full"]),
    st.builds(PressureLine, hundredths, hundredths, hundredths, st.integers(0, 2**63)),
)
def test_a_line_of_pressure_is_read_as_it_was_written(kind: str, line: PressureLine) -> None:
    averages = f"avg10={line.avg10_percent:.2f} avg60={line.avg60_percent:.2f} avg300={line.avg300_percent:.2f}"
    assert parse_pressure_line(f"{kind} {averages} total={line.total_usec}") == line


@requires("psi")
@pytest.mark.parametrize("resource", ["cpu", "io", "memory"])
def test_the_machines_pressure_grows_only(resource: str) -> None:
    before = int(Path(f"/proc/pressure/{resource}").read_text().split()[4].removeprefix("total="))
    line = read_pressure(resource)  # type: ignore[arg-type]  # one of the three by parametrize
    after = int(Path(f"/proc/pressure/{resource}").read_text().split()[4].removeprefix("total="))
    assert before <= line.total_usec <= after
    assert 0 <= line.avg10_percent <= 100
