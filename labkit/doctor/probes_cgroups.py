"""Probes: control groups, one answer a controller.

One child makes one group with every controller that this user can have, sets each limit by itself, sends a process in, freezes and
kills it, and removes the group. What can be known without trying (no tree, read-only, not this user's) is read from the
mounts, for the sentence that names the rule.

See: `labkit.isolation.cgroups`, cgroups(7).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from labkit.doctor.answers import Answer, expect, limited, no, yes
from labkit.doctor.rules import SECCOMP_REMEDY, Facts, text_of
from labkit.errors import DeadlineExceeded, LabkitError
from labkit.isolation.cgroups import Cgroup, CgroupParent, Hierarchy, Layout, Limits, read_layout
from labkit.isolation.cgroups.places import DELEGATE_REMEDY
from labkit.linux.constants import Prctl
from labkit.linux.syscalls import clone3, prctl

__all__ = ["NAMES", "group_name", "probe_cgroups"]

_MIB = 1 << 20
_EVENT_S = 1.0
_LIMITS: dict[str, Limits] = {
    "cpu": Limits(cpus=0.5, cpu_weight=50),
    "memory": Limits(memory_bytes=64 * _MIB),
    "swap": Limits(memory_bytes=64 * _MIB, swap_bytes=16 * _MIB),
    "pids": Limits(pids=32),
    "io": Limits(io_read_bytes_per_s=_MIB, io_write_bytes_per_s=_MIB),
}
_CONTROLLER = {"swap": "memory"}
_IN_CONTAINER = "Start the container around this with a writable cgroup tree (docker run --privileged), or run labkit outside of it."

#: The features that `probe_cgroups` answers for.
NAMES = (
    "cgroups",
    *(f"cgroup {name}" for name in ("cpu", "memory", "swap", "pids", "io", "cpuset", "freezer")),
    "cgroup.kill",
    "CLONE_INTO_CGROUP",
)


def group_name(pid: int) -> str:
    """Return the name of the parent group that the doctor with process id ``pid`` makes."""
    return f"labkit-doctor-{pid}"


def probe_cgroups(facts: Facts, *, name: str) -> dict[str, Answer]:
    """Return the answer for each of `NAMES`. Raises: ExceptionGroup if a group could not be removed."""
    layout = read_layout()
    if not layout.hierarchies:
        return dict.fromkeys(NAMES, _no_tree())
    with CgroupParent(name, layout=layout) as parent:
        usable = parent.controllers
        has_v2 = layout.unified is not None and parent.reaches(layout.unified.mount)
        if not usable and not has_v2:
            return {feature: _why_none(layout, feature) for feature in NAMES}
        try:
            with Cgroup.create(parent, controllers=usable) as group:
                return {"cgroups": _overview(layout, usable)} | _try_group(group, layout, usable)
        except LabkitError as error:
            refused = no(
                str(error).split(". ")[0],
                rule="the cgroup that this user was given cannot be used",
                remedy=DELEGATE_REMEDY,
            )
            return dict.fromkeys(NAMES, refused)


def _no_tree() -> Answer:
    if not os.path.exists("/proc/self/cgroup"):
        return no(
            "no /proc/self/cgroup",
            rule="this kernel has no cgroups, or /proc hides them",
            remedy="Use a distribution's kernel.",
        )
    return no("no tree is mounted", rule="no cgroup tree is mounted here", remedy=_IN_CONTAINER)


def _overview(layout: Layout, usable: frozenset[str]) -> Answer:
    words = {"v1": "version 1", "hybrid": "hybrid: controllers on version 1", "v2": "version 2"}[layout.version]
    wanted = {"cpu", "memory", "pids"}
    if wanted <= usable:
        return yes(words)
    return limited(
        f"{words}; without {', '.join(sorted(wanted - usable))}",
        rule="not every controller is this user's",
        remedy=DELEGATE_REMEDY,
    )


def _why_none(layout: Layout, feature: str) -> Answer:
    controller = feature.removeprefix("cgroup ")
    controller = _CONTROLLER.get(controller, controller)
    unified = layout.unified
    home = layout.hierarchy_of(controller) or unified or layout.hierarchies[0]
    return _why_missing(home, controller if home is not unified or controller in home.controllers else "")


def _why_missing(home: Hierarchy | None, controller: str) -> Answer:
    if home is None:
        return no(
            "not in this kernel",
            rule=f"this machine has no cgroup controller {controller}",
            remedy="Another kernel, or boot it with the controller enabled.",
        )
    place = home.own or home.mount
    if not os.path.isdir(home.mount):
        hidden = "the cgroup tree is hidden: something is mounted over the folder above it"
        return no(f"{home.mount} is not there", rule=hidden, remedy=_IN_CONTAINER)
    if os.path.isdir(place) and os.statvfs(place).f_flag & os.ST_RDONLY:
        return no(
            f"{home.mount} is read-only",
            rule=f"the cgroup tree {home.mount} is mounted read-only",
            remedy=_IN_CONTAINER,
        )
    if home.own is None:
        return no(
            f"{home.mount} does not show it",
            rule=f"the own cgroup is not visible in {home.mount}",
            remedy="Mount the tree afresh in this cgroup namespace (docker run --cgroupns=private --privileged).",
        )
    remedy = DELEGATE_REMEDY if home.version == 2 else "Run labkit as root: cgroup version 1 is not delegated to users."
    return no(f"{place} is not this user's", rule="the cgroup is not delegated to this user", remedy=remedy)


def _try_group(group: Cgroup, layout: Layout, usable: frozenset[str]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for name in ("cpu", "memory", "swap", "pids", "io"):
        controller = _CONTROLLER.get(name, name)
        if controller in usable:
            answers[f"cgroup {name}"] = _try_limit(group, name, layout)
        else:
            answers[f"cgroup {name}"] = _missing(layout, controller)
    answers["cgroup cpuset"] = _try_cpuset(group) if "cpuset" in usable else _missing(layout, "cpuset")
    answers["CLONE_INTO_CGROUP"] = _try_clone_into(group)
    return answers | _try_process(group, layout)


def _missing(layout: Layout, controller: str) -> Answer:
    home = layout.hierarchy_of(controller)
    if home is not None and layout.unified is home and home.own is not None:
        with suppress(OSError):
            if controller not in Path(home.own, "cgroup.controllers").read_text().split():
                return no(
                    "not in cgroup.controllers here",
                    rule=f"the controller {controller} is not delegated to this user",
                    remedy="sudo systemctl edit user@.service, with [Service] Delegate=cpu cpuset io memory pids; then log in again",
                )
    return _why_missing(home, controller)


def _try_limit(group: Cgroup, name: str, layout: Layout) -> Answer:
    wanted = _LIMITS[name]
    before = group.limits
    try:
        group.set(wanted)
    except LabkitError as error:
        return _why_limit(error, name)
    finally:
        with suppress(LabkitError):
            group.set(before)
    home = layout.hierarchy_of(_CONTROLLER.get(name, name))
    if name == "swap" and not Path("/proc/swaps").read_text().splitlines()[1:]:
        return limited(
            "the limit can be set",
            rule="this machine has no swap",
            remedy="None needed: lessons swap inside a virtual machine.",
        )
    if name == "io" and home is not None and home.version == 1:
        return limited(
            "reads and direct writes",
            rule="cgroup version 1 does not limit writes that go through the page cache",
            remedy="Boot with cgroup version 2 (systemd.unified_cgroup_hierarchy=1).",
        )
    return yes()


def _why_limit(error: LabkitError, name: str) -> Answer:
    detail = str(error).split(". ")[0]
    if name == "swap":
        return no(detail, rule="this kernel does not count swap by cgroup", remedy="Boot it with swapaccount=1.")
    if name == "io":
        return no(
            detail,
            rule="the root file system is on no single disk (overlay, tmpfs, btrfs)",
            remedy="Name an io_path on a disk, such as /var/tmp.",
        )
    return no(detail, rule="the kernel refused the limit", remedy=getattr(error, "remedy", "") or DELEGATE_REMEDY)


def _try_cpuset(group: Cgroup) -> Answer:
    try:
        group.set(replace(group.limits, cpuset=str(min(os.sched_getaffinity(0)))))
    except LabkitError as error:
        return _why_limit(error, "cpuset")
    return yes()


def _try_clone_into(group: Cgroup) -> Answer:
    with group.join_fds() as join:
        if join.v2_fd < 0:
            return no(
                "no version 2 tree",
                rule="cgroup version 1 has no such call",
                remedy="None needed: the child walks in by itself.",
            )
        try:
            pid, pidfd = clone3(0, exit_signal=signal.SIGCHLD, cgroup_fd=join.v2_fd)
        except OSError as error:
            return no(
                f"clone3: {text_of(error)}",
                rule="a seccomp filter hides clone3, or Linux is before 5.7",
                remedy=SECCOMP_REMEDY,
            )
        if pid == 0:
            os._exit(0)
        os.close(pidfd)
        born = Path(f"/proc/{pid}/cgroup").read_text()
        os.waitpid(pid, 0)
    return expect(holds=group.name in born, otherwise="the child was born elsewhere")


def _try_process(group: Cgroup, layout: Layout) -> dict[str, Answer]:
    """Send a process in by itself, as labkit's containers go, then freeze and kill it."""
    pid = os.fork()
    if pid == 0:
        # Killed in the middle, the doctor must not leave a frozen child that holds the lock of its groups.
        prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
        os.closerange(3, 1024)
        signal.pause()
        os._exit(0)
    try:
        group.attach(pid)
        frozen, killed = _try_freeze(group, layout), _try_kill(group, layout)
    except DeadlineExceeded as error:
        frozen = killed = no(str(error), rule="it did not happen in time", remedy="Ask again when the machine is idle.")
    except LabkitError as error:
        rule = "this user may not move a process into its group"
        frozen = killed = no(str(error).split(". ")[0], rule=rule, remedy=DELEGATE_REMEDY)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"cgroup freezer": frozen, "cgroup.kill": killed}


def _try_freeze(group: Cgroup, layout: Layout) -> Answer:
    try:
        group.freeze(timeout_s=_EVENT_S)
        frozen = group.is_frozen
        group.thaw()
    except (LabkitError, OSError) as error:
        return no(str(error), rule="this user may not freeze groups here", remedy=DELEGATE_REMEDY)
    how = "version 1" if layout.unified is None or not group.folders.get("unified") else "version 2"
    return expect(how, holds=frozen, otherwise="the group did not freeze")


def _try_kill(group: Cgroup, layout: Layout) -> Answer:
    folder = group.folders.get("unified")
    if folder is None:
        return limited(
            "one process after another",
            rule="cgroup version 1 cannot kill a group in one step"
            if layout.unified is None
            else "the version 2 tree is not this user's",
            remedy="None needed: labkit freezes the group first.",
        )
    if not (folder / "cgroup.kill").exists():
        return limited(
            "one process after another",
            rule="Linux before 5.14 has no cgroup.kill",
            remedy="None needed: labkit freezes the group first.",
        )
    group.kill()
    group.wait_empty(_EVENT_S)
    return yes()
