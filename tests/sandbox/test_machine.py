"""A kernel in a virtual machine: the whole life of one in two boots, and what leads to it where namespaces are refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing
from labkit.sandbox import view
from labkit.sandbox.level import Level, find_level, required
from labkit.sandbox.machine import MOST_MEMORY_BYTES
from labkit.sandbox.machine_tree import make_tree
from labkit.sandbox.policy import Policy
from tests.sandbox.driver import Driver
from tests.sandbox.test_lifecycle import ended
from tests.support import PROJECT, requires

Start = Callable[..., Driver]
POLICY = '[sandbox]\nbackend = "vm"\nrequire = "full"\n[limits]\nmemory = "320 MiB"\npids = 200\n'
MACHINE = Level("full", (), frozenset(), "vm")
#: A user namespace whose root allows no further ones.
NO_NAMESPACES = (
    "unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all -- "$@"', "sh",
)  # fmt: skip
#: The kernel inside runs some twenty times slower than here, and other programs may have the processors, too.
SLOW_S = 240

_FACTS = """
import json, os, pathlib, socket
def reached(port):
    try:
        socket.create_connection(("10.0.2.2", port), timeout=5).close()
    except OSError:
        return False
    return True
lines = pathlib.Path("/proc/mounts").read_text().splitlines()
print(json.dumps({
    "ids": [os.getpid(), os.geteuid()], "release": os.uname().release, "cgroup": pathlib.Path("/proc/self/cgroup").read_text(),
    "writable 9p": [line.split()[1] for line in lines if line.split()[2] == "9p" and "rw" in line.split()[3].split(",")],
    "seen": [path for path in PATHS if os.path.lexists(path)], "data": open("data.txt").read(), "reached": reached(PORT),
}))
"""
_CONTAINER = "from labkit.container import Container, run; print(run(Container(['id', '-u'], image_like_host=True)).text, end='')"


@requires("vm")
@pytest.mark.timeout(900)
def test_a_kernel_lives_in_a_virtual_machine_from_its_start_to_the_death_of_its_server(
    start: Start, course: Path
) -> None:
    """Root's because the policy says so, an ordinary user's because namespaces are refused."""
    hidden = [
        "/etc/shadow",
        "/layers",
        "/host",
        str(PROJECT / "tests"),
        str(PROJECT / ".git"),
        str(course.parent.parent),
    ]
    with socket.create_server(("127.0.0.1", 0)) as canary:
        driver = start(POLICY) if os.geteuid() == 0 else start(POLICY.replace('"vm"', '"auto"'), wrapper=NO_NAMESPACES)
        assert (driver.started.get("level"), driver.started.get("error")) == ("full", None)
        port = canary.getsockname()[1]
        facts = json.loads(driver.text(f"PATHS, PORT = {hidden!r}, {port}\n{_FACTS}", timeout_s=SLOW_S))
        canary.settimeout(0)
        with pytest.raises(BlockingIOError):
            canary.accept()
    assert facts["ids"] == [2, 0]
    assert facts["release"] != os.uname().release
    assert facts["cgroup"] == "0::/\n"
    assert facts["seen"] in ([], [str(course.parent.parent)])  # folders above the notebook's are there, and empty
    assert facts["writable 9p"] == [f"{view.HOME}/work"]
    assert (facts["data"], facts["reached"]) == ("from the host\n", False)
    _is_confined(driver.started["kernel_pid"])
    assert driver.text(_CONTAINER, timeout_s=SLOW_S) == "0\n"
    driver.text(f"open('data.txt', 'w').close(); open('{view.HOME}/work/kept', 'w').write('kept')", timeout_s=SLOW_S)
    assert (course / "data.txt").read_text() == "from the host\n"
    _is_interrupted(driver)
    _says_that_memory_was_the_end(driver)
    _comes_back_and_goes_with_its_server(driver)


def _is_confined(qemu_pid: int) -> None:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{qemu_pid}/status").read_text().splitlines() if ":\t" in line
    )
    uids, capabilities = set(status["Uid"].split()), int(status["CapEff"], 16)
    assert uids == {str(0x7000_0000 if os.geteuid() == 0 else os.geteuid())}
    assert (capabilities, status["Seccomp"]) == (0, "2")


def _is_interrupted(driver: Driver) -> None:
    driver.ask("interrupt_soon", delay_s=3)
    interrupted = driver.run("import time; time.sleep(600)", timeout_s=SLOW_S)
    assert [name for name, _ in interrupted["errors"]] == ["KeyboardInterrupt"]
    assert driver.text("1 + 1", timeout_s=SLOW_S) == "2"


def _says_that_memory_was_the_end(driver: Driver) -> None:
    hog = driver.run("data = []\nfor _ in range(1000): data.append(bytearray(b'x') * (1 << 20))", timeout_s=SLOW_S)
    assert hog["errors"][0][0] == "MemoryLimitReached", hog
    assert "320 MiB" in hog["errors"][0][1]
    assert ended(driver.started["kernel_pid"])


def _comes_back_and_goes_with_its_server(driver: Driver) -> None:
    again = driver.ask("restart", now=True)
    assert driver.text(f"open('{view.HOME}/work/kept').read()", timeout_s=SLOW_S) == "'kept'"
    kept = driver.folder / "work/kept" if driver.folder != Path() else None
    assert kept is None or kept.stat().st_uid != 0
    driver.process.send_signal(signal.SIGKILL)
    driver.process.wait(20)
    assert ended(again["kernel_pid"])
    subprocess.run([sys.executable, "-m", "labkit", "clean"], cwd=PROJECT, capture_output=True, check=True, timeout=60)


@requires("vm")
def test_a_machine_that_has_just_refused_a_sandbox_gets_a_virtual_one_unless_the_policy_says_namespaces() -> None:
    assert find_level(refused="not here").backend == "vm"
    plain = find_level("namespaces", refused="not here")
    assert (plain.name, plain.backend) == ("none", "")
    assert "does not allow the namespaces of a sandbox: not here" in plain.reasons[0]


def test_without_a_guest_kernel_the_policy_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    level = find_level("vm")
    assert level.name == "none"
    with pytest.raises(FeatureMissing, match=r'backend = "vm", which this machine does not have.*labkit setup'):
        required(level, Policy(backend="vm"))
    both = find_level("auto", refused="not here")
    assert (both.name, len(both.reasons)) == ("none", 2)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(network="outgoing"), r'network\.mode = "outgoing".*has no way out'),
        (Policy(notebooks="keep"), r'mounts\.notebooks = "keep".*cannot keep changes'),
        (Policy(memory_bytes=MOST_MEMORY_BYTES + (1 << 30)), r"limits\.memory.*has at most"),
    ],
)
def test_what_a_virtual_machine_cannot_keep_of_a_policy_is_refused(policy: Policy, words: str) -> None:
    with pytest.raises(FeatureMissing, match=words):
        required(MACHINE, policy)
    assert required(MACHINE, Policy()) is MACHINE


def test_qemu_serves_what_the_sandbox_shows_and_only_work_for_writing(course: Path, tmp_path: Path) -> None:
    mounts = view.mounts(Policy(), cwd=str(course), work=str(tmp_path))
    tree = make_tree(mounts, view.links(), view.files(hostname="here"))
    shown = {mount.source for mount in mounts if mount.kind in ("bind", "overlay") and os.path.isdir(mount.source)}
    assert {str(share.path) for share in tree.shares} == shown
    assert [str(share.path) for share in tree.shares if not share.readonly] == [str(tmp_path)]
    paths = [entry.path for entry in tree.entries]
    assert len(paths) == len(set(paths))
    for path in paths:  # an archive is unpacked in its order
        above = path.rpartition("/")[0]
        assert not above or above in paths[: paths.index(path)]
