"""A layer of 200 MB: unpacked about as fast as tar does it, in little memory. Medians of interleaved runs."""

from __future__ import annotations

import hashlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.image import media_types
from labkit.image.blobs import BlobStore
from labkit.image.layer import LayerReader
from labkit.image.media_types import Compression
from labkit.image.rootfs import remove_tree
from labkit.image.unpack import unpack
from tests.support import PROJECT, requires

pytestmark = requires("userns", "root")
_MiB = 1 << 20
RUNS = 3


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 200 MB layer, plain, gzip and zstd: as an interpreter's installation, large libraries and many small files."""
    folder = tmp_path_factory.mktemp("layer")
    rnd, source = random.Random(7), folder / "source"
    for number in range(20):
        (source / f"package-{number}").mkdir(parents=True)
        for inner in range(40):
            (source / f"package-{number}" / f"module_{inner}.py").write_bytes(rnd.randbytes(6000).hex().encode())
    for number in range(10):
        (source / f"lib{number}.so").write_bytes(
            (rnd.randbytes(_MiB) + bytes(_MiB)) * 9 + rnd.randbytes(3 * _MiB // 10)
        )
    subprocess.run(["tar", "-C", str(source), "-cf", str(folder / "layer.tar"), "."], check=True)
    subprocess.run(["gzip", "-1", "-k", str(folder / "layer.tar")], check=True)
    subprocess.run(["zstd", "-q", "-3", "-k", str(folder / "layer.tar")], check=True)
    shutil.rmtree(source)
    return folder


def by_tar(archive: Path, target: Path) -> None:
    subprocess.run(["tar", "-C", str(target), "-xf", str(archive)], check=True)


def measured(work: Callable[[], object], target: Path) -> tuple[float, float]:
    """Return the seconds that unpacking into ``target`` takes, by the wall clock and of processors (children's too)."""
    target.mkdir()
    before_s, started_s = processors_s(), time.perf_counter()
    work()
    elapsed_s, used_s = time.perf_counter() - started_s, processors_s() - before_s
    remove_tree(target)
    return elapsed_s, used_s


def processors_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


# tar's time and a fifth of it. zstd reaches that on a machine with nothing else to do (1.13) and not always beside other work (1.4):
# its frames are fed in small pieces, so that one that stands for gigabytes cannot fill the memory.
AIM, MOST = 1.2, {"none": 1.2, "gzip": 1.2, "zstd": 1.7}


@requires("program:zstd")
@pytest.mark.parametrize(
    ("name", "kind"), [("layer.tar", "none"), ("layer.tar.gz", "gzip"), ("layer.tar.zst", "zstd")]
)  # fmt: skip
def test_a_layer_of_200_MB_is_unpacked_and_checked_about_as_fast_as_tar_unpacks_it(
    layer: Path, tmp_path: Path, name: str, kind: Compression
) -> None:
    assert (layer / "layer.tar").stat().st_size > 190 * _MiB
    blobs, target = BlobStore(tmp_path / "store"), tmp_path / "t"
    descriptor = blobs.put((layer / name).read_bytes(), media_types.layer_type(kind))
    with (layer / "layer.tar").open("rb") as file:
        diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def by_labkit() -> None:
        with LayerReader(blobs, descriptor, diff_id=diff_id) as reader:
            unpack(reader, target, plain_fd=reader.plain_fd)

    ratios: list[tuple[float, float]] = []
    for _ in range(3):  # a machine that is busy with something else gets another chance
        ours, theirs = [], []
        for _ in range(RUNS):
            theirs.append(measured(lambda: by_tar(layer / name, target), target))
            ours.append(measured(by_labkit, target))
        medians = [[statistics.median(row[n] for row in rows) for n in (0, 1)] for rows in (ours, theirs)]
        ratios.append((medians[0][0] / medians[1][0], medians[0][1] / medians[1][1]))
        # Two processes that hand data to each other wait for a busy machine more often than one; their work is no more for it.
        if min(ratios[-1]) <= AIM:
            break
    print(f"{name}: labkit/tar (wall clock, processors) = {ratios}")
    assert min(min(pair) for pair in ratios) <= MOST[kind], ratios


_MEASURED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from labkit.image.store import ImageStore
from labkit.image.flatten import import_archive, export_image
store = ImageStore(sys.argv[2])
with open(sys.argv[3], "rb", buffering=0) as file:
    image = import_archive(store, file, tag="large", compression="zstd")
store.lowers(image)
with open("/dev/null", "wb", buffering=0) as out:
    export_image(store, image, out)
# Not ru_maxrss: it begins with what the parent of this program had. See: proc_pid_status(5).
print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM")))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
"""


def test_import_unpack_and_export_of_200_MB_take_less_than_100_MB_of_memory(layer: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MEASURED, str(PROJECT), str(tmp_path / "store"), str(layer / "layer.tar")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    program_mib, child_mib = map(int, done.stdout.split())
    print(f"memory: program {program_mib} MiB, confined child {child_mib} MiB")
    assert max(program_mib, child_mib) < 100
    remove_tree(tmp_path / "store")


def test_a_bomb_of_a_gigabyte_takes_no_memory_either(tmp_path: Path) -> None:
    code = (
        "import sys, io, zlib; sys.path.insert(0, sys.argv[1])\n"
        "from labkit.image.layer import Decompressor\n"
        "data = zlib.compress(bytes(16 << 20), 9, 31) * 64\n"
        "source = Decompressor(io.BytesIO(data), 'gzip')\n"
        "while source.read(1): pass\n"
        "peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(source.given_bytes >> 20, peak >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(PROJECT)], capture_output=True, text=True, check=True)
    given_mib, memory_mib = map(int, done.stdout.split())
    assert (given_mib, memory_mib < 100) == (1024, True)
