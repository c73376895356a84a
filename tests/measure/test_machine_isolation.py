"""The matrix with a machine: namespaces share the host's kernel, a guest has its own, and its panic is its own, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.linux.constants import NS, NS_FILES
from labkit.measure.isolation import PROBES, Isolation, IsolationMatrix
from labkit.measure.machine_isolation import MACHINE_PROBES, PLACE, machine_matrix, probe_shared_kernel
from labkit.vm.kernel import find_kernel
from tests.support import requires

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@pytest.fixture(scope="module")
def matrix() -> IsolationMatrix:
    return machine_matrix()


@requires("vm", "userns", "timens", "program:busybox")
@pytest.mark.timeout(120)
class TestMatrix:
    """One matrix, looked at from several sides."""

    def test_its_columns_are_no_namespace_all_of_them_and_the_machine(self, matrix: IsolationMatrix) -> None:
        kinds = [(column.namespaces, column.place) for column in matrix.columns]
        assert kinds == [((), ""), (tuple(NS_FILES.values()), ""), ((), PLACE)]
        for column in matrix.columns:
            assert [finding.probe for finding in column.findings] == [probe.name for probe in MACHINE_PROBES]

    def test_a_guest_sees_nothing_of_the_host(self, matrix: IsolationMatrix) -> None:
        machine = matrix.columns[-1]
        assert {finding.probe: finding.verdict for finding in machine.findings} == dict.fromkeys(
            (probe.name for probe in MACHINE_PROBES), "own"
        )

    def test_the_kernel_is_the_hosts_in_all_namespaces_and_another_one_in_the_machine(
        self, matrix: IsolationMatrix
    ) -> None:
        inside = [column.finding("kernel") for column in matrix.columns]
        number = BOOT_ID.read_text()[:8]
        assert all(f.inside == f.host == f"{os.uname().release}, boot {number}" for f in inside[:2])
        assert inside[2].inside.startswith(find_kernel("micro").release) and number not in inside[2].inside

    def test_a_panic_is_tried_in_the_machine_only_and_the_host_goes_on(self, matrix: IsolationMatrix) -> None:
        *shared, machine = (column.finding("panic") for column in matrix.columns)
        assert {(f.sees_host, f.inside) for f in shared} == {(None, "not tried: it would be the host's")}
        assert "sysrq triggered crash" in machine.inside and machine.host == "goes on"

    def test_what_was_found_is_more_than_names(self, matrix: IsolationMatrix) -> None:
        machine = matrix.columns[-1]
        assert machine.finding("mounts").inside == "mounted a tmpfs"
        assert machine.finding("interfaces").inside == "lo"
        assert machine.finding("clock").inside.endswith(" s")
        assert machine.finding("pid").inside.isdigit() and machine.finding("pid").host == "no such process"

    def test_it_survives_json(self, matrix: IsolationMatrix) -> None:
        assert IsolationMatrix.from_json(matrix.to_json()) == matrix


@requires("userns")
def test_namespaces_alone_are_asked_whose_kernel_they_have() -> None:
    found = probe_shared_kernel(NS.USER | NS.PID)
    assert found.finding("kernel").sees_host is True
    assert found.finding("pid").sees_host is False
    assert len(found.findings) == len(PROBES) + 2


def test_older_results_without_a_place_are_read() -> None:
    old = {"namespaces": ["pid"], "findings": [], "elapsed_ms": 1.0, "note": ""}
    assert Isolation.from_json(old).place == ""
