"""First replies of ordinary and of sandboxed kernels, one after the other.

``python -m tests.sandbox.performance`` measures both, ten times by turns, and says what the sandbox costs, for the user who runs it; the
test gives it a folder of kernelspecs and a number. On a busy machine the ratio says little: the CPU time beside it says more.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

KERNELS = ("plain", "labkit")


def first_reply_s(name: str, kernels: str) -> float:
    """Return the time from ``start_kernel`` to the first execute reply of one kernel."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager

    manager = KernelManager(
        kernel_name=name, kernel_spec_manager=KernelSpecManager(kernel_dirs=[kernels], ensure_native_kernel=False)
    )
    started_s = time.perf_counter()
    manager.start_kernel(cwd=str(Path(__file__).parents[2] / "notebooks"))
    client = manager.client()
    client.start_channels()
    client.execute("1 + 1")
    client.get_shell_msg(timeout=60)
    elapsed_s = time.perf_counter() - started_s
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    return elapsed_s


def both_kernelspecs(folder: Path) -> Path:
    """Make the sandbox's kernelspec for this Python in ``folder`` and, called ``plain``, the same without its provisioner; return where."""
    from labkit.setup import kernelspec

    spec = kernelspec.spec(Path(sys.executable))
    for name, metadata in (("labkit", spec["metadata"]), ("plain", {})):
        (folder / name).mkdir()
        (folder / name / "kernel.json").write_text(json.dumps(spec | {"metadata": metadata}))
    return folder


def _measure(kernels: str, count: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in KERNELS}
    for number in range(count + 1):
        for name in KERNELS:
            elapsed_s = first_reply_s(name, kernels)
            if number:  # the first round fills caches
                times[name].append(elapsed_s)
    return times


def _report(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="labkit-performance-") as folder:
        times = _measure(str(both_kernelspecs(Path(folder))), count)
    for name in KERNELS:
        found = sorted(times[name])
        print(
            f"{name:<7} median {statistics.median(found) * 1e3:.0f} ms ({found[0] * 1e3:.0f} to {found[-1] * 1e3:.0f}), n={count}"
        )
    used = resource.getrusage(resource.RUSAGE_SELF)
    ratio = statistics.median(times["labkit"]) / statistics.median(times["plain"])
    print(
        f"ratio {ratio:.2f} as user {os.geteuid()}, at most 1.25; load {os.getloadavg()[0]:.1f}; the server's own CPU time {used.ru_utime + used.ru_stime:.1f} s"
    )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))))
    else:
        _report(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
