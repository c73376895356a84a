"""The time stamp counter: as fast as the kernel found it to be."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from labkit.linux.tsc import tsc_khz


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no time stamp counter here")
def test_the_counter_runs_within_a_factor_of_the_processors_clock() -> None:
    measured = tsc_khz()
    assert measured is not None
    listed = re.search(r"^cpu MHz\s*: ([0-9.]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert listed is not None
    # A processor may clock itself down to a fraction of the counter's speed, and up to a multiple.
    assert 0.2 < float(listed[1]) * 1000 / measured < 5


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no time stamp counter here")
def test_two_measurements_agree() -> None:
    first, second = tsc_khz(), tsc_khz()
    assert first is not None
    assert second == pytest.approx(first, rel=0.02)


def test_other_machines_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert tsc_khz() is None
