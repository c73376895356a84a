"""How fast a pull is, side by side with skopeo's, in turns; and what it holds in memory meanwhile."""

from __future__ import annotations

import gzip
import io
import os
import resource
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from tests.image.registry.test_interop import docker_registry, real_image, run
from tests.image.registry.wire import Wire, digest_of
from tests.support import PROJECT, requires

SIZE = 200 << 20
PULL = """
import sys
from labkit.image import ImageStore, Reference
from labkit.image.registry.pull import pull
pull(Reference.parse(sys.argv[1]), ImageStore(sys.argv[2]))
with open("/proc/self/status") as file:
    print(next(line for line in file if line.startswith("VmHWM")).split()[1])
"""


def tar_of(size: int) -> bytes:
    """Return a tar with one file of ``size`` random bytes, made without copying it about."""
    info = tarfile.TarInfo("random")
    info.size = size
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive, open("/dev/urandom", "rb") as noise:
        archive.addfile(info, noise)
    return stream.getvalue()


def timed(*command: str | Path) -> tuple[float, float, str]:
    """Run a program; return its seconds by the wall clock, those of the processors, and what it printed."""
    before, begun_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    printed = run(*command, cwd=PROJECT)
    wall_s, after = time.perf_counter() - begun_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, printed


@pytest.mark.timeout(600)  # a second or two a pull, where nobody else works
@requires("root", "program:skopeo", "program:podman", "program:docker-registry")
def test_a_pull_of_200_MB_is_not_slower_than_others_and_small_in_memory(tmp_path: Path) -> None:
    # Stored, not compressed: gzip's own speed is not asked about.
    layer = gzip.compress(tar_of(SIZE), 0, mtime=0)
    manifest, blobs = real_image(layer)
    is_quiet = os.getloadavg()[0] < (os.cpu_count() or 1)
    times: dict[str, list[tuple[float, float, str]]] = {"labkit": [], "skopeo": [], "podman": []}
    with docker_registry(tmp_path) as address, tempfile.TemporaryDirectory(prefix="labkit-p") as short:
        wire = Wire(address)
        for data in blobs:
            wire.push("a/big", data)
        assert wire.put("a/big", "1", manifest).status == 201
        del data, blobs, layer
        name, store, layout, pods = f"{address}/a/big:1", tmp_path / "store", tmp_path / "layout", tmp_path / "p"
        podman = ("podman", "--root", pods, "--runroot", short, "--storage-driver", "vfs")
        for turn in range(3):
            times["labkit"].append(timed(sys.executable, "-c", PULL, name, store))
            times["skopeo"].append(
                timed("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}:latest")
            )
            if turn == 1:
                times["podman"].append(timed(*podman, "pull", "-q", "--tls-verify=false", name))
                run(*podman, "rmi", "-af")
            assert digest_of(manifest)[7:] in os.listdir(store / "blobs/sha256")
            for folder in (store, layout):
                shutil.rmtree(folder)
    wall_s, cpu_s = ({who: statistics.median(row[n] for row in rows) for who, rows in times.items()} for n in (0, 1))
    peak_kib = max(int(printed) for _, _, printed in times["labkit"])
    print(f"wall {wall_s}, processors {cpu_s}, peak {peak_kib} KiB, ratio {wall_s['labkit'] / wall_s['skopeo']:.2f}")
    assert peak_kib < 100 * 1024
    # Where others work at the same time, the clock on the wall says more about them; the processors' time does not.
    assert cpu_s["labkit"] < 1.1 * cpu_s["skopeo"]
    assert wall_s["labkit"] < 1.1 * wall_s["podman"]
    assert not is_quiet or wall_s["labkit"] < 1.1 * wall_s["skopeo"]
