"""What a class needs: the memory of kernels in a lesson, of their sandboxes, and of a student's server; where docs/workshop.md has its numbers.

``python -m tests.sandbox.memory [STUDENTS]`` starts so many sandboxed kernels (20), lets each load what a lesson loads and start a
container, asks all at once for ``1 + 1``, and counts the memory of every process once: its proportional set size.

See: proc_pid_smaps(5).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from labkit.setup import kernelspec
from tests.sandbox.driver import Driver, pss_kib
from tests.sandbox.test_server import answer, started

LESSON = """
import matplotlib.pyplot, ipywidgets
from labkit import NS, Container, Limits, lesson
from labkit.container import run
from labkit.measure import startup
assert run(Container(["id", "-u"], image_like_host=True)).text == "0\\n"
"""


def children_of(pid: int) -> list[int]:
    """Return the children of ``pid`` and theirs."""
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*own, *(below for child in own for below in children_of(child))]


def kernels_mib(count: int, folder: Path) -> dict[str, float]:
    """Return megabytes a kernel, a sandbox around it and a launcher; seconds until all ``count`` have answered."""
    specs = kernelspec.install(folder / "prefix", Path(sys.executable)).parent
    drivers: list[Driver] = []
    with ExitStack() as stack:
        for number in range(count):
            work = folder / f"student{number}"
            work.mkdir()
            (work / "policy.toml").write_text(f'[mounts]\nwork = "{work}/work"\n')
            environ = {"LABKIT_SANDBOX_POLICY": str(work / "policy.toml"), "JUPYTER_RUNTIME_DIR": str(work / "runtime")}
            drivers.append(stack.enter_context(Driver(specs, folder, environ=environ)))
            drivers[-1].text(LESSON)
        began_s = time.monotonic()
        for driver in drivers:
            driver.tell("run", code="1 + 1", timeout_s=60)
        assert all(driver.answer()["text"] == "2" for driver in drivers)
        elapsed_s = time.monotonic() - began_s
        found = {"answered_s": elapsed_s}
        inside = [[driver.started["kernel_pid"], *children_of(driver.started["kernel_pid"])] for driver in drivers]
        found["kernel"] = statistics.median(pss_kib(pids[0]) for pids in inside) / 1024
        found["kernel and its launcher"] = statistics.median(sum(map(pss_kib, pids)) for pids in inside) / 1024
        around = [(driver.started["sandbox_pid"], driver.started["launcher_pid"]) for driver in drivers]
        found["init and the server's launcher"] = statistics.median(sum(map(pss_kib, pids)) for pids in around) / 1024
    return found


def server_mib(folder: Path) -> float:
    """Return the megabytes of a student's server that has shown its page."""
    with started([sys.executable, "-P", "-m", "labkit.sandbox.server"], folder) as (address, _):
        assert answer(address)[0] == 200
        pids = subprocess.run(
            ["pgrep", "-f", "labkit.sandbox.server"], capture_output=True, text=True, check=True
        ).stdout.split()
        own = [int(pid) for pid in pids if f"HOME={folder}" in Path(f"/proc/{pid}/environ").read_text()]
        return sum(map(pss_kib, own)) / 1024


def _main(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="labkit-memory-") as folder:
        found = kernels_mib(count, Path(folder)) | {"server": server_mib(Path(folder))}
    facts = {"students": count, "cpus": len(os.sched_getaffinity(0)), "user": os.geteuid(), "load": os.getloadavg()[0]}
    print(json.dumps(facts | {name: round(number, 2) for name, number in found.items()}, indent=1))


if __name__ == "__main__":
    _main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
