from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from labkit.errors import DeadlineExceeded, LabkitError
from labkit.measure.bundle import oci_config
from labkit.measure.programs import container_name, held_cgroups, run_program
from labkit.measure.startup import race
from tests.support import requires
from tests.support.hierarchies import mounted_hierarchies


def test_a_program_that_fails_or_hangs_is_an_error_and_leaves_no_process() -> None:
    run_program(["/bin/true"], {})
    with pytest.raises(LabkitError, match="false ended with 1"):
        run_program(["/bin/false"], {})
    began_s = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="sleep took longer"):
        run_program(["/bin/sleep", "60"], {}, timeout_s=0.2)
    assert time.monotonic() - began_s < 5


@requires("root")
def test_held_cgroups_are_locked_while_held_and_gone_afterwards() -> None:
    mounts = [hierarchy.mount for hierarchy in mounted_hierarchies()]
    with held_cgroups() as group:
        held = [f"{mount}{group}" for mount in mounts if os.path.isdir(f"{mount}{group}")]
        for folder in held:
            assert subprocess.run(["flock", "--nonblock", "--exclusive", folder, "true"], check=False).returncode == 1
            os.mkdir(f"{folder}/left-by-a-runtime")
    assert not any(os.path.isdir(folder) for folder in held)


@requires("program:runc")
def test_the_bundle_is_what_runc_calls_a_bundle(tmp_path: Path) -> None:
    """runc writes a bundle of its own; ours has no key that runc's does not have or the specification does not name."""
    subprocess.run(["runc", "spec", "--rootless"], cwd=tmp_path, check=True)
    theirs = json.loads((tmp_path / "config.json").read_text())
    ours = oci_config(tmp_path, group="/labkit-test")
    assert set(ours) <= set(theirs)
    assert set(ours["process"]) <= set(theirs["process"])
    assert set(ours["linux"]) <= set(theirs["linux"]) | {
        "cgroupsPath", "gidMappings", "resources", "seccomp", "uidMappings",
    }  # fmt: skip


def test_the_bundle_has_the_namespaces_and_limits_of_the_container(tmp_path: Path) -> None:
    linux = oci_config(tmp_path, group="/labkit-test")["linux"]
    kinds = {item["type"] for item in linux["namespaces"]}
    assert kinds == {"user", "mount", "pid", "network", "ipc", "uts", "cgroup"}
    assert linux["resources"]["memory"]["limit"] == 64 << 20
    assert linux["resources"]["cpu"] == {"quota": 50_000, "period": 100_000}
    assert "resources" not in oci_config(tmp_path, group=None)["linux"]


@requires("root", "program:runc")
def test_runc_leaves_no_state_and_no_cgroup_behind() -> None:
    race(2, only=["runc"], warm_up=0)
    left = [h.mount for h in mounted_hierarchies() if os.path.isdir(f"{h.mount}/{container_name()}")]
    assert left == []
    assert not os.path.exists(f"/run/runc/{container_name()}")


@requires("program:podman")
def test_podman_keeps_off_the_users_own_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    race(1, only=["podman"], warm_up=0)
    assert not list(tmp_path.rglob("*vfs*"))
    assert not list(tmp_path.rglob("*.db"))


def test_signals_of_this_process_are_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    race(1, only=["process"], warm_up=0)
    assert signal.getsignal(signal.SIGINT) is before
