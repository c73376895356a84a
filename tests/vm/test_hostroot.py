"""A guest on the host's files: what it shares, what is its own, and that nothing that it writes reaches the host."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import GuestError
from labkit.vm.hostroot import HOSTROOT_MODULES, HostRoot, enter_host_root, hostroot_spec
from labkit.vm.kernel import find_kernel
from tests.support import PROJECT, requires

pytestmark = [requires("vm"), pytest.mark.timeout(240)]
PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def guest() -> Iterator[HostRoot]:
    """One guest for all tests here; each leaves it as it was."""
    with HostRoot(512, cpus=1) as running:
        yield running


def output(guest: HostRoot, *command: str, timeout_s: float = 90) -> str:
    """Return what ``command`` prints in the guest; it must end well."""
    done = guest.exec(command, timeout_s=timeout_s)
    assert done.status == 0, done.stderr.decode()
    return done.text.strip()


def test_its_kernel_is_its_own_and_its_files_are_the_hosts(guest: HostRoot) -> None:
    assert output(guest, "uname", "-r") == find_kernel("hostroot").release != os.uname().release
    digest = hashlib.sha256(Path(PYTHON).read_bytes()).hexdigest()
    assert output(guest, "sha256sum", PYTHON).split()[0] == digest
    assert output(guest, "ls", str(PROJECT / "labkit/vm")).split() == sorted(os.listdir(PROJECT / "labkit/vm"))


def test_what_it_writes_stays_in_it(guest: HostRoot) -> None:
    place = PROJECT / "labkit-guest-was-here"
    output(guest, "sh", "-c", f"echo x > {place} && rm {PROJECT}/README.md && mkdir /labkit-guest-folder")
    assert output(guest, "cat", str(place)) == "x"
    assert not place.exists()
    assert (PROJECT / "README.md").is_file()
    assert not Path("/labkit-guest-folder").exists()
    refused = guest.exec(
        [
            "sh",
            "-c",
            "mkdir /labkit-9p; mount -t 9p -o trans=virtio,version=9p2000.L labkit-host /labkit-9p && touch /labkit-9p/tmp/labkit-x",
        ]
    )
    assert refused.status != 0
    assert not Path("/tmp/labkit-x").exists()


def test_it_has_pure_cgroup_v2_with_every_controller_that_labkit_uses(guest: HostRoot) -> None:
    assert output(guest, "stat", "-f", "-c", "%T", "/sys/fs/cgroup") == "cgroup2fs"
    assert output(guest, "grep", "-c", "cgroup", "/proc/mounts") == "1"
    enabled = output(guest, "cat", "/sys/fs/cgroup/cgroup.subtree_control").split()
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(enabled)
    assert output(guest, "cat", "/proc/pressure/memory").startswith("some ")


def test_all_namespaces_can_be_made_by_root_and_by_an_ordinary_user(guest: HostRoot) -> None:
    unshare = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--net",
        "--ipc",
        "--uts",
        "--cgroup",
        "--time",
    ]
    assert output(guest, *unshare, "id", "-u") == "0"
    as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    assert output(guest, *as_user, "id", "-u") == "65534"
    assert output(guest, *as_user, *unshare, "id", "-u") == "0"


def test_python_and_labkit_run_in_it(guest: HostRoot) -> None:
    code = "import labkit, sys; from labkit.isolation.cgroups import read_layout; print(labkit.__file__, read_layout().version)"
    done = guest.exec([sys.executable, "-c", code], cwd=str(PROJECT), timeout_s=90)
    assert done.status == 0, done.stderr.decode()
    file, version = done.text.split()
    assert Path(file).parent == PROJECT / "labkit"
    assert version in ("v2", "2")


def test_a_container_with_limits_runs_in_it(guest: HostRoot) -> None:
    words = [sys.executable, "-m", "labkit", "run", "--memory", "64M", "--pids", "8", "--", "/bin/sh", "-c", "echo $$"]
    done = guest.exec(words, cwd=str(PROJECT), timeout_s=120)
    assert (done.status, done.stdout) == (0, b"1\n"), done.stderr.decode()


def test_the_first_line_of_python_comes_soon() -> None:
    """Calm, on two cores under emulation: 2.2 s, and as much processor time. Time on the clock is others' business on a busy machine."""
    began_s = time.monotonic()
    with HostRoot(512, cpus=1) as guest:
        assert output(guest, PYTHON, "-c", "print('here')") == "here"
        fields = Path(f"/proc/{guest.pid}/stat").read_text().rpartition(") ")[2].split()
        assert (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") < 7  # a core that is shared counts twice
    assert time.monotonic() - began_s < 60


def test_a_step_that_the_guests_kernel_refuses_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(machine: str) -> object:
        calls, purposes = enter_host_root(machine)
        refused = calls.call("mount", "labkit", "/labkit-no-such-folder", "tmpfs", 0, "")
        return calls, {**purposes, refused: "mount something on nothing"}

    monkeypatch.setattr("labkit.vm.hostroot.enter_host_root", broken)
    with (
        pytest.raises(GuestError, match="could not mount something on nothing: No such file or directory"),
        HostRoot(256),
    ):
        pass


def test_the_spec_shares_the_root_read_only_and_loads_what_is_needed_for_it() -> None:
    spec = hostroot_spec(memory_mib=256, cpus=1)
    (share,) = spec.shares
    assert (share.path, share.readonly) == (Path("/"), True)
    names = [Path(path).stem for path in spec.modules]
    assert set(HOSTROOT_MODULES) <= set(names) | {"9p", "overlay"}
    assert names.index("9pnet") < names.index("9p")
