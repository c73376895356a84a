"""The doctor on this machine, as this user, and under refusals that are really in force.

No test changes a setting of the machine: limits are set inside a user namespace, which has its own; masks and read-only
mounts are made in a mount namespace; filters are loaded into the process that asks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labkit.doctor import FEATURES, examine
from tests.support import PROJECT, has, requires

#: Generous: other tests may keep the machine busy. The report comes as soon as it is complete.
TIMEOUT_S = 20.0
_ASK = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
from labkit.doctor import examine
print(examine(timeout_s={TIMEOUT_S}).to_json())
"""
_FILTER = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
from labkit.isolation.seccomp import compile_filter, default_profile
from labkit.linux.constants import Prctl
from labkit.linux.syscalls import prctl, seccomp_set_filter
prctl(Prctl.SET_NO_NEW_PRIVS, 1)
seccomp_set_filter(compile_filter(default_profile()))
"""
Rows = dict[str, dict[str, Any]]


def _ask(*prefix: str, before: str = "", env: dict[str, str] | None = None) -> Rows:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", before + _ASK],
        capture_output=True, text=True, timeout=3 * TIMEOUT_S, check=False, env=env, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["features"]}


def _ask_inside(script: str, *options: str) -> Rows:
    """Ask inside new namespaces, after ``script`` has prepared them."""
    return _ask("unshare", "--map-root-user", *options, "sh", "-ec", f'{script}\nexec "$@"', "sh")


@pytest.fixture(scope="module")
def rows() -> Rows:
    """The report of this machine, as this user, without any refusal added."""
    return _ask()


def test_every_feature_has_a_row_and_every_refusal_a_rule_and_a_remedy(rows: Rows) -> None:
    assert list(rows) == list(FEATURES)
    for row in rows.values():
        assert row["state"] in ("yes", "limited", "no")
        assert (row["state"] == "yes") == (row["rule"] == "") == (row["remedy"] == ""), row
        assert "\n" not in row["rule"] + row["remedy"] + row["detail"]


@pytest.mark.parametrize(
    ("feature", "witness"),
    [
        ("user namespace", "userns"),
        ("mount namespace", "mount-namespace"),
        ("pid namespace", "pid-namespace"),
        ("network namespace", "network-namespace"),
        ("ipc namespace", "ipc-namespace"),
        ("uts namespace", "uts-namespace"),
        ("cgroup namespace", "cgroup-namespace"),
        ("time namespace", "timens"),
        ("overlay", "overlay-userns"),
        ("pressure (PSI)", "psi"),
        ("bwrap", "program:bwrap"),
        ("package pyseccomp", "module:pyseccomp"),
    ],
)
def test_the_answers_agree_with_what_the_systems_own_programs_can_do(rows: Rows, feature: str, witness: str) -> None:
    assert (rows[feature]["state"] == "yes") == has(witness), rows[feature]


def test_controllers_agree_with_groups_made_by_hand(rows: Rows) -> None:
    for controller in ("cpu", "memory", "pids", "cpuset"):
        by_hand = has(f"cgroup1:{controller}") or has(f"cgroup2:{controller}")
        assert (rows[f"cgroup {controller}"]["state"] == "yes") == by_hand, rows[f"cgroup {controller}"]


def test_kvm_is_never_trusted_before_a_guest_has_run(rows: Rows) -> None:
    opens = os.access("/dev/kvm", os.R_OK | os.W_OK)
    assert rows["KVM"]["state"] == ("limited" if opens else "no")


def test_a_report_takes_under_two_seconds_and_a_jupyter_process_with_threads_can_ask() -> None:
    import threading

    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        began_s = time.monotonic()
        report = examine()
        elapsed_s = time.monotonic() - began_s
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert elapsed_s < 2.0
    assert len(report.features) == len(FEATURES)


def test_nothing_is_left_in_the_cgroup_trees_or_among_the_mounts() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    examine(timeout_s=TIMEOUT_S)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    left = [folder for folder in Path("/sys/fs/cgroup").glob("**/labkit-doctor-*") if str(os.getpid()) in folder.name]
    assert left == []


@requires("userns", "network-namespace")
def test_a_limit_of_no_network_namespaces_is_named() -> None:
    rows = _ask_inside("echo 0 > /proc/sys/user/max_net_namespaces")
    for name in ("network namespace", "loopback", "fresh /sys"):
        assert rows[name]["state"] == "no"
        assert rows[name]["rule"] == "user.max_net_namespaces=0 forbids them"
        assert "sysctl -w user.max_net_namespaces" in rows[name]["remedy"]
    assert rows["uts namespace"]["state"] == "yes"


@requires("userns")
def test_limits_of_the_other_kinds_are_named_each_by_itself() -> None:
    kinds = ("mnt", "pid", "ipc", "uts", "cgroup", "time")
    rows = _ask_inside("".join(f"echo 0 > /proc/sys/user/max_{kind}_namespaces\n" for kind in kinds))
    for kind in kinds:
        row = rows["mount namespace" if kind == "mnt" else f"{kind} namespace"]
        assert (row["state"], row["rule"]) == ("no", f"user.max_{kind}_namespaces=0 forbids them")


@requires("userns")
def test_a_limit_of_no_user_namespaces_leaves_root_the_dangerous_way_only() -> None:
    rows = _ask_inside("echo 0 > /proc/sys/user/max_user_namespaces")
    assert rows["user namespace"]["rule"] == "user.max_user_namespaces=0 forbids them"
    assert rows["nested user namespace"]["state"] == "no"
    for name in ("pid namespace", "overlay", "pivot_root"):
        assert rows[name]["state"] == "limited", rows[name]
        assert rows[name]["rule"] == rows["user namespace"]["rule"]


@requires("pyseccomp")
def test_a_filter_like_dockers_is_told_from_a_missing_permission() -> None:
    rows = _ask(before=_FILTER)
    assert rows["user namespace"]["rule"] == "a seccomp filter refuses unshare(CLONE_NEWUSER)"
    assert rows["clone3"]["rule"] == "a seccomp filter hides clone3"
    for name in ("mount namespace", "pid namespace", "overlay", "fresh /proc", "loopback"):
        assert rows[name]["state"] == "no"
        assert "seccomp filter refuses unshare" in rows[name]["rule"], rows[name]
        assert "seccomp=unconfined" in rows[name]["remedy"]
    assert rows["no_new_privs"]["detail"] == "it is set already"
    assert rows["seccomp filter"]["state"] == "yes"  # one more may always be loaded
    assert rows["pidfd"]["state"] == "yes"


@requires("userns", "pid-namespace")
def test_a_masked_proc_is_named_with_what_covers_it() -> None:
    rows = _ask_inside("mount --bind /dev/null /proc/version", "--mount", "--pid", "--fork", "--mount-proc")
    assert rows["fresh /proc"]["state"] == "no"
    assert rows["fresh /proc"]["rule"].startswith("masked /proc: /proc/version is mounted over")
    assert "systempaths=unconfined" in rows["fresh /proc"]["remedy"]
    assert rows["pid namespace"]["state"] == "yes"


@requires("userns", "mount-namespace")
def test_a_masked_sys_is_named() -> None:
    rows = _ask_inside("mount -t tmpfs labkit-masked /sys/kernel", "--mount")
    assert rows["fresh /sys"]["rule"].startswith("masked /sys: /sys/kernel is mounted over")


_READ_ONLY_CGROUPS = """
for line in $(awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/self/mounts); do
    mount --bind "$line" "$line"
    mount -o remount,bind,ro "$line"
done
"""


@requires("userns", "mount-namespace", "cgroups")
def test_a_read_only_cgroup_tree_is_named() -> None:
    rows = _ask_inside(_READ_ONLY_CGROUPS, "--mount")
    for name in ("cgroups", "cgroup memory", "cgroup pids", "cgroup freezer"):
        assert rows[name]["state"] == "no"
        assert "is mounted read-only" in rows[name]["rule"], rows[name]
    assert rows["user namespace"]["state"] == "yes"


@requires("userns", "mount-namespace")
def test_a_hidden_cgroup_tree_is_named() -> None:
    rows = _ask_inside("mount -t tmpfs labkit-masked /sys/fs/cgroup", "--mount")
    for name in ("cgroup memory", "cgroup pids", "cgroup freezer"):
        assert rows[name]["rule"].startswith(("the cgroup tree is hidden", "no cgroup tree is mounted")), rows[name]


@requires("undelegated")
def test_a_user_without_a_delegated_group_reads_so() -> None:
    rows = _ask()
    assert rows["cgroup memory"]["rule"] == "the cgroup is not delegated to this user"


@requires("no-subuid", "user")
def test_a_user_without_a_range_of_ids_is_told_how_to_get_one(rows: Rows) -> None:
    assert rows["one id mapped"]["state"] == "yes"
    assert rows["range of ids mapped"]["state"] == "no"
    assert "add-subuids" in rows["range of ids mapped"]["remedy"] or "uidmap" in rows["range of ids mapped"]["remedy"]


@requires("subuid", "user")
def test_a_user_with_a_range_of_ids_gets_it_by_newuidmap(rows: Rows) -> None:
    assert rows["range of ids mapped"]["detail"].endswith("by newuidmap")


@requires("program:bwrap", "userns")
def test_inside_bubblewrap_the_doctor_still_finishes_and_names_what_bubblewrap_forbids() -> None:
    options = ("--unshare-all", "--dev-bind", "/", "/", "--disable-userns", "--unshare-user")
    rows = _ask("bwrap", *options)
    assert rows["user namespace"]["state"] == "no"
    assert "max_user_namespaces" in rows["user namespace"]["rule"]


def test_programs_that_are_not_on_the_path_are_missing_with_their_package(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PATH"} | {"PATH": str(tmp_path)}
    rows = _ask(env=env)
    assert rows["bwrap"]["rule"] == "missing program: bwrap"
    assert rows["bwrap"]["remedy"] == "sudo apt-get install bubblewrap"


def test_a_program_that_cannot_run_is_not_taken_for_present(tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o755)
    rows = _ask(env=dict(os.environ) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert rows["bwrap"]["rule"] == f"{fake} ended with status 3"


def test_a_program_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    fake = tmp_path / "runc"
    fake.write_text(f"#!/bin/sh\n{shutil.which('sleep')} 987 &\nwait\n")
    fake.chmod(0o755)
    code = _ASK.replace(str(TIMEOUT_S), "4.0")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True,
        env=dict(os.environ) | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    rows = {row["name"]: row for row in json.loads(done.stdout)["features"]}
    assert rows["runc"]["state"] == "limited"
    assert "did not answer in time" in rows["runc"]["rule"]


def test_a_python_that_cannot_start_gives_a_whole_report(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    fake.chmod(0o755)
    report = examine(python=str(fake))
    assert report["user namespace"].rule == "the probe failed: broken"
    assert report["package pyseccomp"].state in ("yes", "no")
