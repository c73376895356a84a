"""The wall and the grid show what the probes found, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.charts import Frames, figure
from labkit.charts.isolation import Wall, draw_grid, name_of, words_of_grid
from labkit.measure import host_facts
from labkit.measure.isolation import PROBES, Finding, Isolation, IsolationMatrix

KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")


def isolation(*namespaces: str, unknown: str = "") -> Isolation:
    """Return an isolation in which each namespace hides what it should, and ``unknown`` could not be probed."""
    findings = []
    for probe in PROBES:
        hidden = set(probe.hidden_by.split(" and ")) <= set(namespaces)
        sees = None if probe.name == unknown else not hidden
        findings.append(Finding(probe.name, probe.title, "lo, eth0", "lo", sees))
    return Isolation(namespaces, tuple(findings), 50.0)


def parts_of(wall: Wall, probe: str) -> tuple[Any, Any, Any, Any]:
    """Return the beam, the brick, the mark and the words of a row."""
    return wall._parts[probe]


def test_a_window_is_open_or_walled_up_as_found() -> None:
    wall = Wall()
    frames = Frames(wall)
    assert frames.png(isolation("net", unknown="clock")).startswith(b"\x89PNG")
    beam, brick, mark, words = parts_of(wall, "interfaces")
    assert list(beam.get_xdata()) == [0, 1] and list(brick.get_xdata()) == [1]
    assert mark.get_fillstyle() == "none" and words.get_text() == "has its own"
    beam, brick, mark, words = parts_of(wall, "hostname")
    assert list(beam.get_xdata()) == [0, 2] and list(brick.get_xdata()) == []
    assert mark.get_fillstyle() == "full" and words.get_text() == "sees the host's"
    beam, brick, _, words = parts_of(wall, "clock")
    assert list(beam.get_xdata()) == list(brick.get_xdata()) == [] and words.get_text() == "not probed"


def test_every_probe_has_its_row() -> None:
    wall = Wall()
    Frames(wall)
    assert list(wall._parts) == [probe.name for probe in PROBES]


@pytest.mark.parametrize(
    ("namespaces", "name"),
    [((), "none"), (("pid",), "pid"), (("pid", "mnt"), "pid+mount"), (KINDS, "all"), (KINDS[:7], "all")],
)
def test_a_choice_has_a_short_name(namespaces: tuple[str, ...], name: str) -> None:
    assert name_of(isolation(*namespaces)) == name


def test_the_grid_and_its_words_agree() -> None:
    matrix = IsolationMatrix(host_facts(), (isolation(), isolation("net"), isolation(*KINDS)))
    _, (axes,) = figure()
    draw_grid(axes, matrix)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "network", "all"]
    markers = [line.get_marker() for line in axes.lines]
    assert len(markers) == 3 * len(PROBES)
    own = sum(finding.sees_host is False for column in matrix.columns for finding in column.findings)
    assert markers.count("o") == own
    words = words_of_grid(matrix)
    assert "none: everything of the host is seen" in words
    assert "network: network interfaces, servers on 127.0.0.1" in words


def test_a_machine_has_a_column_of_its_own_and_the_title_says_what_only_it_has() -> None:
    everything, findings = isolation(*KINDS), list(isolation(*KINDS).findings)
    kernel = [Finding("kernel", "the kernel", "6.1", text, sees) for text, sees in (("6.1", True), ("5.4", False))]
    shared = Isolation(everything.namespaces, (*findings, kernel[0]), 1.0)
    machine = Isolation((), (*findings, kernel[1]), 1.0, place="micro VM")
    drawn, (axes,) = figure()
    draw_grid(axes, IsolationMatrix(host_facts(), (shared, machine)))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["all", "micro VM"]
    assert axes.get_title(loc="left") == "Only the machine has its own: the kernel"
    assert "micro VM: its own PID" in words_of_grid(IsolationMatrix(host_facts(), (shared, machine)))
    drawn.clear()
