"""``python -m labkit.isolation.cgroups``: find the cgroups of this machine, make one, watch it hold back a CPU hog.

Leaves out: everything that `labkit doctor` reports in more detail.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from labkit.errors import LabkitError
from labkit.isolation.cgroups import Cgroup, CgroupParent, Limits

__all__ = ["main"]

_HOG_S = 1.5
#: Ends by itself, should this program be killed.
_HOG = f"import time\nend = time.monotonic() + {_HOG_S + 5}\nwhile time.monotonic() < end: pass"


def main() -> int:
    """Show the layout and a throttled process; return 0, or 1 with the reason."""
    try:
        with CgroupParent() as parent:
            _show_layout(parent)
            with Cgroup.create(parent, Limits(cpus=0.25, memory_bytes=64 << 20, pids=16)) as group:
                _show_hog(group)
    except LabkitError as error:
        print(f"labkit: {error}", file=sys.stderr)
        return 1
    print("deleted")
    return 0


def _show_layout(parent: CgroupParent) -> None:
    print(f"cgroups here: {parent.version}")
    for hierarchy in parent.layout.hierarchies:
        base = parent.base_of(hierarchy.mount)
        names = ",".join(hierarchy.controllers) or "no controllers"
        print(f"  v{hierarchy.version} {hierarchy.mount} ({names}): groups go into {base.folder if base else 'none'}")
    for reason in dict.fromkeys(parent.missing_controllers.values()):
        print(f"  missing: {reason}")


def _show_hog(group: Cgroup) -> None:
    for controller, folder in group.folders.items():
        print(f"{controller}: {folder}")
    print(f"{group.limits}")
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _HOG]) as hog:
        try:
            group.attach(hog.pid)
            before, began_s = group.stats(), time.monotonic()
            print(f"pid {hog.pid} burns CPU for {_HOG_S} s; this program is {os.getpid()} and stays outside")
            time.sleep(_HOG_S)
            after, elapsed_s = group.stats(), time.monotonic() - began_s
        finally:
            group.kill()
    used_s = ((after.cpu_usage_usec or 0) - (before.cpu_usage_usec or 0)) / 1e6
    print(f"it had {used_s:.2f} s of CPU in {elapsed_s:.2f} s: {used_s / elapsed_s:.2f} CPUs of 0.25 allowed")
    print(f"throttled in {after.nr_throttled} of {after.nr_periods} periods")
    print(f"{after}")


if __name__ == "__main__":
    sys.exit(main())
