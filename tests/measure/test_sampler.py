from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from labkit.container import Container
from labkit.errors import InvalidSpec, InvalidState
from labkit.isolation.cgroups import Cgroup, Limits
from labkit.measure.sampler import Sample, Sampler
from labkit.units import MiB
from tests.support import requires

pytestmark = requires("cgroups", "userns")

_BUSY = ["sh", "-c", "while :; do :; done"]


@pytest.fixture
def busy() -> Iterator[Container]:
    """A container that computes without end, with 0.3 of a CPU."""
    limits = Limits(cpus=0.3, memory_bytes=64 * MiB, pids=16)
    with Container(_BUSY, image_like_host=True, limits=limits, time_limit_s=30) as container:
        container.start()
        yield container


def group_of(container: Container) -> Cgroup:
    assert container.cgroup is not None
    return container.cgroup


def test_cpu_is_what_the_limit_allows_and_the_host_sees_the_same(busy: Container) -> None:
    sampler = Sampler(group_of(busy), busy.pid)
    sampler.take()
    time.sleep(2.0)
    sample = sampler.take()
    assert sample.cpu_percent is not None
    assert sample.host_cpu_percent is not None
    assert 3 < sample.cpu_percent < 40  # a busy machine may give less than the limit, never more
    assert sample.host_cpu_percent == pytest.approx(sample.cpu_percent, abs=8)
    assert sample.host_processes == 1


def test_a_group_that_wants_more_than_its_limit_is_seen_throttled(busy: Container) -> None:
    sampler = Sampler(group_of(busy))
    sampler.take()
    deadline_s = time.monotonic() + 10
    while not (sample := sampler.take()).throttled_usec and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert sample.throttled_usec
    assert any((item.throttled_percent or 0) > 0 for item in sampler.samples)


def test_memory_and_processes_are_those_of_the_files(busy: Container) -> None:
    group = group_of(busy)
    sample = Sampler(group, busy.pid).take()
    folder = group.folders["pids"]
    shown = subprocess.run(["cat", f"{folder}/pids.current"], capture_output=True, text=True, check=True).stdout
    assert sample.pids == int(shown) == 1
    assert sample.memory_bytes is not None
    assert 0 < sample.memory_bytes < 64 * MiB
    resident_kib = subprocess.run(["ps", "-o", "rss=", "-p", str(busy.pid)], capture_output=True, text=True, check=True)
    assert sample.host_resident_bytes == pytest.approx(int(resident_kib.stdout) * 1024, rel=0.2)


def test_the_first_sample_has_no_rates(busy: Container) -> None:
    first = Sampler(group_of(busy), busy.pid).take()
    assert (first.cpu_percent, first.host_cpu_percent) == (None, None)


def test_the_thread_samples_at_its_rate_and_keeps_no_more_than_asked(busy: Container) -> None:
    with Sampler(group_of(busy), busy.pid, rate_hz=20, keep=5) as sampler:
        time.sleep(1.5)
        assert threading.active_count() > 1
    times = [sample.time_s for sample in sampler.samples]
    assert len(times) == 5
    assert times == sorted(times)
    assert times[-1] - times[0] < 4 * 0.05 * 6  # 4 intervals of 50 ms, on a busy machine
    assert sampler.latest == sampler.samples[-1]


def test_the_event_ends_the_thread_and_stopping_twice_is_fine(busy: Container) -> None:
    sampler = Sampler(group_of(busy)).start()
    sampler.stopped.set()
    sampler.stop()
    sampler.stop()
    count = len(sampler.samples)
    time.sleep(0.3)
    assert len(sampler.samples) == count
    with pytest.raises(InvalidState):
        sampler.start()


def test_a_group_that_is_deleted_ends_the_thread() -> None:
    with Cgroup.create() as group:
        sampler = Sampler(group, rate_hz=50).start()
        time.sleep(0.1)
    assert sampler.stopped.wait(5)
    sampler.stop()
    assert sampler.latest is not None


def test_a_process_that_has_ended_is_no_error() -> None:
    with Cgroup.create() as group, Container(["true"], image_like_host=True) as container:
        container.start()
        pid = container.pid
        container.wait()
        sample = Sampler(group, pid).take()
        assert (sample.host_processes, sample.host_cpu_percent) == (None, None)


@requires("psi")
def test_pressure_says_whose_it_is(busy: Container) -> None:
    sample = Sampler(group_of(busy)).take()
    assert sample.pressure_scope in ("cgroup", "machine")
    assert sample.pressure_cpu_percent is not None


def test_a_sample_survives_json(busy: Container) -> None:
    sample = Sampler(group_of(busy), busy.pid).take()
    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample


@pytest.mark.parametrize("rate_hz", [0, -1, 1000])
def test_a_rate_that_cannot_be_kept_is_refused(busy: Container, rate_hz: float) -> None:
    with pytest.raises(InvalidSpec, match="cannot be kept"):
        Sampler(group_of(busy), rate_hz=rate_hz)
