from __future__ import annotations

import json
import os
import socket
import subprocess

import pytest

from labkit.errors import LabkitError
from labkit.linux.constants import NS, NS_FILES
from labkit.measure.inside import LOOKS
from labkit.measure.isolation import KERNEL_PROBE, PROBES, Isolation, IsolationMatrix, isolation_matrix, probe_isolation
from labkit.measure.witness import JUDGES, canaries, is_mounted
from tests.support import has, requires

pytestmark = requires("userns", "timens")

#: The kind of namespace that hides what each probe looks for; the rest of the matrix shows the host's.
HIDDEN_BY = {
    "pid": NS.PID, "processes": NS.PID, "hostname": NS.UTS, "mounts": NS.MNT, "interfaces": NS.NET, "loopback": NS.NET,
    "sysv_ipc": NS.IPC, "uid": NS.USER, "cgroup": NS.CGROUP, "clock": NS.TIME,
}  # fmt: skip
#: As an ordinary user the launcher itself is in a user and a mount namespace.
ALWAYS_HIDDEN = () if os.geteuid() == 0 else ("uid", "mounts")


@pytest.fixture(scope="module")
def matrix() -> IsolationMatrix:
    return isolation_matrix()


def column(matrix: IsolationMatrix, kind: NS) -> Isolation:
    return next(item for item in matrix.columns if item.namespaces == (NS_FILES[kind],))


def test_without_namespaces_a_process_sees_what_the_host_sees(matrix: IsolationMatrix) -> None:
    none = matrix.columns[0]
    assert none.namespaces == ()
    assert [f.probe for f in none.findings if f.sees_host is not True] == [p for p in LOOKS if p in ALWAYS_HIDDEN]


def test_with_all_namespaces_a_process_sees_nothing_of_the_host(matrix: IsolationMatrix) -> None:
    everything = matrix.columns[-1]
    assert everything.namespaces == tuple(NS_FILES.values())
    assert {finding.verdict for finding in everything.findings} == {"own"}


@pytest.mark.parametrize("kind", list(NS_FILES), ids=NS_FILES.values())
def test_one_kind_hides_what_it_is_for_and_nothing_else(matrix: IsolationMatrix, kind: NS) -> None:
    own = {finding.probe for finding in column(matrix, kind).findings if finding.sees_host is False}
    assert own == {probe for probe, hider in HIDDEN_BY.items() if hider == kind} | set(ALWAYS_HIDDEN)


def test_an_old_proc_still_shows_the_host_until_a_new_one_is_mounted(matrix: IsolationMatrix) -> None:
    assert column(matrix, NS.PID).finding("proc").sees_host is True
    assert probe_isolation(NS.PID | NS.MNT).finding("proc").sees_host is False


def test_what_a_process_sees_agrees_with_unshare(matrix: IsolationMatrix) -> None:
    """The witness: util-linux makes the same namespaces and looks with its own means."""
    name = socket.gethostname()
    command = ["unshare", "--user", "--map-root-user", "--uts", "sh", "-c", "hostname labkit-inside; hostname"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "labkit-inside"
    assert column(matrix, NS.UTS).finding("hostname").inside == "labkit-inside"
    assert socket.gethostname() == name == column(matrix, NS.UTS).finding("hostname").host


@requires("program:ip")
def test_the_interfaces_inside_are_those_that_ip_shows_in_a_new_namespace(matrix: IsolationMatrix) -> None:
    command = ["unshare", "--user", "--map-root-user", "--net", "ip", "-json", "link"]
    fresh = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    shown = column(matrix, NS.NET).finding("interfaces")
    assert shown.inside == ", ".join(item["ifname"] for item in fresh)
    here = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout)
    assert sorted(shown.host.split(", ")) == sorted(item["ifname"] for item in here)


def test_the_matrix_survives_json(matrix: IsolationMatrix) -> None:
    assert IsolationMatrix.from_json(json.loads(json.dumps(matrix.to_json()))) == matrix


def test_every_probe_is_looked_for_judged_and_explained() -> None:
    probes = (*PROBES, KERNEL_PROBE)
    assert [probe.name for probe in probes] == list(LOOKS) == list(JUDGES)
    assert all(probe.title and probe.method and probe.hidden_by for probe in probes)


def test_the_note_says_what_was_added(matrix: IsolationMatrix) -> None:
    assert "new /proc" in matrix.columns[-1].note
    assert ("launcher is in a user" in matrix.columns[0].note) == (os.geteuid() != 0)


@requires("cgroups")
def test_with_a_cgroup_of_its_own_the_paths_differ_only_in_a_cgroup_namespace(matrix: IsolationMatrix) -> None:
    outside, inside = matrix.columns[0].finding("cgroup"), column(matrix, NS.CGROUP).finding("cgroup")
    assert outside.inside == outside.host
    assert "labkit-" in outside.host
    assert (inside.inside, "labkit-" in inside.host) == ("/", True)


def test_canaries_are_gone_afterwards() -> None:
    with canaries() as host:
        mount_point, pid = host.mount_point, host.process_pid
        assert os.path.exists(f"/proc/{pid}")
        assert str(host.segment) in subprocess.run(["ipcs", "-m"], capture_output=True, text=True, check=True).stdout
    assert not os.path.exists(f"/proc/{pid}")
    assert not mount_point.exists()
    assert not is_mounted(mount_point)


def test_a_probe_that_cannot_look_is_unknown_not_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_segments(*_: object) -> dict[str, object]:
        return {name: {"error": "Permission denied"} for name in LOOKS}

    monkeypatch.setattr("labkit.measure.isolation._answer", no_segments)
    findings = probe_isolation(NS(0)).findings
    assert {(finding.sees_host, finding.verdict) for finding in findings} == {(None, "unknown")}
    assert findings[0].inside == "could not look: Permission denied"


def test_probes_that_die_are_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.measure.isolation.inner_command", lambda *_, **__: ["sh", "-c", "echo bad >&2; exit 3"])
    with pytest.raises(LabkitError, match="gave no answer: bad"):
        probe_isolation(NS.UTS)


def test_the_machine_has_what_the_matrix_needs() -> None:
    assert has("program:unshare")
