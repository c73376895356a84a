"""Two programs that compute, on one and the same processor, with a weight each: how the kernel divides what both want all of.

Where this user may make cgroups, each program is in a group of its own and the weight is the group's (``cpu.weight``; ``cpu.shares``
on v1). Where not, the weights are put into effect by `nice`, whose steps are a factor of 1.25 each: the same ratio, made
with the older means, and the result says so. The programs end by themselves when their maker does, or after some minutes.

Leaves out: more than two; several processors, between which the kernel also moves programs.
See: sched(7), nice(2), sched_setaffinity(2); Documentation/admin-guide/cgroup-v2.rst ("CPU").
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

from labkit.errors import FeatureMissing, InvalidSpec, InvalidState
from labkit.isolation.cgroups import Cgroup, Limits
from labkit.measure.record import Result

__all__ = ["MOST_WEIGHT", "NICE_STEP", "SharedCpu", "Shares", "nice_for"]

MOST_WEIGHT = 10_000
#: By how much one step of `nice` changes a weight (kernel/sched/core.c, sched_prio_to_weight).
NICE_STEP = 1.25
_MOST_NICE = 19
_WINDOW_S = 2.0
_LIFE_S = 300.0
_HOG = """import os, sys, time
end_s, parent = time.monotonic() + float(sys.argv[1]), os.getppid()
while time.monotonic() < end_s and os.getppid() == parent:
    for _ in range(200_000): pass
"""


@dataclass(frozen=True, slots=True)
class Shares(Result):
    """What two programs got: their weights, the processor time so far, and their part of one CPU in the last two seconds.

    ``by``: what the weights were set with. ``note``: why it was not a cgroup.
    """

    by: str
    weights: tuple[int, int]
    used_s: tuple[float, float]
    percent: tuple[float, float]
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times as much time the first has got as the second, since both began. Raises: InvalidState at once."""
        if not self.used_s[1]:
            raise InvalidState("The second program has not had any processor time yet: wait a moment.")
        return self.used_s[0] / self.used_s[1]

    @property
    def expected_percent(self) -> tuple[float, float]:
        """What their weights promise of what both together got."""
        both, total = sum(self.percent), sum(self.weights)
        return both * self.weights[0] / total, both * self.weights[1] / total


def nice_for(weights: tuple[int, int]) -> tuple[int, int]:
    """Return the nice values whose ratio is nearest to that of ``weights``; the greater weight has 0."""
    most = max(weights)
    first, second = (min(_MOST_NICE, round(math.log(most / weight, NICE_STEP))) for weight in weights)
    return first, second


class SharedCpu:
    """The two programs; a context manager, and what it made ends with it. ``by_nice`` takes no cgroup even where there are some."""

    def __init__(self, weights: tuple[int, int] = (300, 100), *, by_nice: bool = False) -> None:
        self.weights = _checked(weights)
        self.by, self.note = "nice" if by_nice else "cgroup weights", ""
        self._stack = ExitStack()
        self._groups: list[Cgroup] = []
        self._hogs: list[psutil.Popen] = []
        self._before_s = [0.0, 0.0]  # of programs that were replaced
        self._looks: deque[tuple[float, tuple[float, float]]] = deque()

    def start(self) -> None:
        """Start both, each with its weight. Raises: OSError."""
        try:
            if self.by != "nice":
                self._make_groups()
            for number in range(2):
                self._hogs.append(self._hog(number))
        except BaseException:
            self.close()
            raise

    def set_weights(self, weights: tuple[int, int]) -> None:
        """Give them other weights from now on. Raises: InvalidSpec for what is no weight, InvalidState before `start`."""
        self.weights = _checked(weights)
        if len(self._hogs) < 2:
            raise InvalidState("The two programs have not been started: call start() first.")
        for group, weight in zip(self._groups, weights, strict=False):
            group.set(Limits(cpu_weight=weight))
        if not self._groups:
            for number, nice in enumerate(nice_for(weights)):
                self._set_nice(number, nice)
        self._looks.clear()

    def take(self) -> Shares:
        """Look how much each has got. Raises: InvalidState when one has ended."""
        now_s, used_s = time.monotonic(), self._used_s()
        self._looks.append((now_s, used_s))
        while now_s - self._looks[0][0] > _WINDOW_S:
            self._looks.popleft()
        first_s, before_s = self._looks[0]
        elapsed_s = now_s - first_s
        percent = [
            100 * (used - old) / elapsed_s if elapsed_s else 0.0 for used, old in zip(used_s, before_s, strict=True)
        ]
        return Shares(self.by, self.weights, used_s, (percent[0], percent[1]), self.note)

    def measure(self, elapsed_s: float = 4.0) -> Shares:
        """Let them run for ``elapsed_s``, and return what each got in that time."""
        began_s, start_s = time.monotonic(), self._used_s()
        time.sleep(elapsed_s)
        used = [now - before for now, before in zip(self._used_s(), start_s, strict=True)]
        passed_s = time.monotonic() - began_s
        percent = (100 * used[0] / passed_s, 100 * used[1] / passed_s)
        return Shares(self.by, self.weights, (used[0], used[1]), percent, self.note)

    @property
    def pids(self) -> tuple[int, ...]:
        """The pids of the two programs."""
        return tuple(hog.pid for hog in self._hogs)

    def close(self) -> None:
        """End both and remove their groups; safe to call twice."""
        hogs, self._hogs = self._hogs, []
        for hog in hogs:
            hog.kill()
            hog.wait()
        self._groups.clear()
        self._stack.close()

    def _make_groups(self) -> None:
        with ExitStack() as half:
            try:
                groups = [
                    half.enter_context(Cgroup.create(limits=Limits(cpu_weight=weight))) for weight in self.weights
                ]
            except FeatureMissing as error:
                self.by, self.note = "nice", str(error)
                return
            self._groups, self._stack = groups, half.pop_all()

    def _hog(self, number: int) -> psutil.Popen:
        """Start a program that computes, bound to the first processor that this one may use."""
        command = [sys.executable, "-I", "-S", "-c", _HOG, str(_LIFE_S)]
        hog = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            os.sched_setaffinity(hog.pid, {min(os.sched_getaffinity(0))})
            if self._groups:
                self._groups[number].attach(hog.pid)
            else:
                hog.nice(nice_for(self.weights)[number])
        except BaseException:
            hog.kill()
            hog.wait()
            raise
        return hog

    def _set_nice(self, number: int, nice: int) -> None:
        """Set a nice value; an ordinary user may only raise it, so for a lower one the program begins anew."""
        try:
            self._hogs[number].nice(nice)
        except psutil.AccessDenied:
            old = self._hogs[number]
            self._before_s[number] += _cpu_s(old)
            old.kill()
            old.wait()
            self._hogs[number] = self._hog(number)

    def _used_s(self) -> tuple[float, float]:
        if len(self._hogs) < 2:
            raise InvalidState("The two programs do not run.")
        first, second = (before + _cpu_s(hog) for before, hog in zip(self._before_s, self._hogs, strict=True))
        return first, second

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cpu_s(hog: psutil.Popen) -> float:
    try:
        if hog.status() == psutil.STATUS_ZOMBIE:
            raise InvalidState("One of the two programs has ended: its minutes were over, or somebody ended it.")
        times = hog.cpu_times()
    except psutil.NoSuchProcess as error:
        raise InvalidState("One of the two programs has ended.") from error
    return float(times.user + times.system)


def _checked(weights: tuple[int, int]) -> tuple[int, int]:
    if len(weights) != 2 or not all(1 <= weight <= MOST_WEIGHT for weight in weights):
        raise InvalidSpec(f"{weights} are no two weights: each is a whole number from 1 to {MOST_WEIGHT}.")
    return weights
