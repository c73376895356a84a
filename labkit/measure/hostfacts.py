"""On what machine a number was taken: without that it cannot be compared with anybody else's.

All of it is read from ``/proc``, ``/sys`` and uname(2), in about a millisecond and without starting a program.

Leaves out: the load of the machine, CPU frequency, names and addresses of the host.
See: proc_cpuinfo(5), proc_meminfo(5), cgroups(7), uname(2).
"""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass

import labkit
from labkit.isolation.cgroups import read_layout
from labkit.linux.proc import read_text, sizes_bytes
from labkit.measure.clock import CLOCK, resolution_ms
from labkit.measure.record import Result

__all__ = ["HostFacts", "host_facts", "virtualisation"]

_CPU_NAME_KEYS = ("model name", "Model", "uarch", "isa", "CPU part")


@dataclass(frozen=True, slots=True)
class HostFacts(Result):
    """The machine, the versions, the moment. ``virtualised`` names the hypervisor, or is empty on bare metal."""

    kernel: str
    machine: str
    cpu_model: str
    cpus: int
    memory_bytes: int
    cgroup_version: str
    virtualised: str
    as_root: bool
    labkit: str
    python: str
    date: str
    clock: str
    clock_resolution_ms: float

    def __str__(self) -> str:
        """Return one line for below a figure."""
        where = f"in a virtual machine ({self.virtualised})" if self.virtualised else "on bare metal"
        who = "as root" if self.as_root else "as an ordinary user"
        return (
            f"Linux {self.kernel} {where}, {self.cpus} × {self.cpu_model}, {self.memory_bytes / 2**30:.1f} GiB,"
            f" cgroups {self.cgroup_version}, {who}, labkit {self.labkit}, Python {self.python}, {self.date}"
        )


def host_facts() -> HostFacts:
    """Return the facts of this machine, now."""
    name = os.uname()
    return HostFacts(
        kernel=name.release,
        machine=name.machine,
        cpu_model=_cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=sizes_bytes(read_text("/proc/meminfo")).get("MemTotal", 0),
        cgroup_version=read_layout().version,
        virtualised=virtualisation(),
        as_root=os.geteuid() == 0,
        labkit=labkit.__version__,
        python=platform.python_version(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        clock=CLOCK,
        clock_resolution_ms=resolution_ms(),
    )


def _cpu_model() -> str:
    rows = [line.split(":", 1) for line in read_text("/proc/cpuinfo").splitlines() if ":" in line]
    found = {key.strip(): value.strip() for key, value in reversed(rows)}
    return next((found[key] for key in _CPU_NAME_KEYS if key in found), os.uname().machine)


def virtualisation() -> str:
    """Return what this kernel runs on: ``KVM``, ``VMware``, ... ; empty on bare metal. Witness: systemd-detect-virt(1).

    A CPU under a hypervisor has the flag ``hypervisor``; which one it is stands in the firmware's tables, if it has any.
    """
    flags = next((line for line in read_text("/proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    if "hypervisor" not in flags.split():
        return ""
    for name in ("sys_vendor", "product_name", "board_vendor"):
        try:
            text = read_text(f"/sys/class/dmi/id/{name}").strip()
        except OSError:
            continue  # no firmware tables (a micro VM), or not ours to read
        if text:
            return text
    return "a hypervisor"
