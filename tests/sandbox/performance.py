"""First replies of ordinary and of sandboxed kernels, one after the other; run as ``python -m tests.sandbox.performance KERNELS N``."""

from __future__ import annotations

import json
import sys
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


def _main(kernels: str, count: str) -> None:
    times: dict[str, list[float]] = {name: [] for name in KERNELS}
    for number in range(int(count) + 1):
        for name in KERNELS:
            elapsed_s = first_reply_s(name, kernels)
            if number:  # the first round fills caches
                times[name].append(elapsed_s)
    print(json.dumps(times))


if __name__ == "__main__":
    _main(*sys.argv[1:])
