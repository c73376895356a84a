"""A cgroup in your hands: sliders write its limits, buttons start hogs that lean against them, charts show what comes of it.

A slider is one write to one file of the cgroup (``cpu.max``, ``memory.max``, ``pids.max``; on v1 their older names), and the kernel
keeps the new limit from that moment on. The hogs live in a `HogPen`, which the view makes when it needs one: they end when
the view rests or is closed, when their minute is over, or when the pen's ten minutes are.

Leaves out: weights, I/O; limits that a group may not have (``max``).
See: `labkit.measure.hogs`, `labkit.charts.cgroup_live`; Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from labkit.charts.cgroup_live import CgroupChart, Moment
from labkit.errors import FeatureMissing, LabkitError
from labkit.isolation.cgroups import Limits
from labkit.measure.hogs import HOGS, HogPen
from labkit.measure.sampler import Sample, Sampler
from labkit.units import MiB
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["CgroupSliders"]

START = Limits(cpus=0.5, memory_bytes=128 * MiB, swap_bytes=0, pids=40)
_MOST_CPU_PERCENT, _MOST_MEMORY_MIB, _MOST_PIDS = 100, 256, 64
_ALT = "Three curves with their limits: CPU time, memory and processes of a cgroup"


class CgroupSliders(LiveView[Moment]):
    """The live view of one pen of hogs; show it as the last line of a cell. `rest` ends everything and keeps the page.

    ``begin`` names hogs (of `HOGS`) that run from the start. Raises: FeatureMissing where this user may make no cgroup.
    """

    def __init__(self, limits: Limits = START, *, begin: Sequence[str] = ()) -> None:
        self.limits = limits
        self.pen: HogPen | None = None
        self._pens: list[HogPen] = []  # what on_close closes; it must not hold the view itself
        self._opening, self._looked_s = threading.Lock(), 0.0
        self._open()
        try:
            for name in begin:
                self._open().begin(name)
            self._build_controls()
            super().__init__(
                self._look,
                CgroupChart(
                    most_cpu_percent=_MOST_CPU_PERCENT, most_memory_bytes=_MOST_MEMORY_MIB * MiB, most_pids=_MOST_PIDS
                ),
                title="a cgroup, its limits and its hogs", alt=_ALT, describe=_describe,
                # In a row, because a control whose value changes makes a standing view draw a frame, and news is none.
                controls=[*self._sliders.values(), layout.row(*self._buttons.values()), layout.row(self._news)],
                size_in=(8.0, 2.5), on_close=partial(_shut, self._pens),
            )  # fmt: skip
        except BaseException:
            _shut(self._pens)
            raise

    def start(self) -> None:
        """Begin to draw, with a new pen if there is none."""
        if not self.closed:
            self._open()
        super().start()

    def press(self, name: str) -> None:
        """Start the hog ``name``, or end it if it runs, as its button does. The view begins to draw if it did not."""
        pen = self._open()
        if name in pen.running:
            pen.end(name)
            self._say(f"The {name} was ended.")
        else:
            pen.begin(name)
            self._say(f"The {name} runs; without a limit it would take {HOGS[name].most}.")
            self.start()
        self._label_buttons()

    def limit(self, limits: Limits) -> None:
        """Give the group ``limits``, and show what the kernel said; a refusal leaves them as they were."""
        try:
            if self.pen is not None:
                self.pen.cgroup.set(limits)
                self._say("The kernel took the new limit.")
            self.limits = limits
        except LabkitError as error:
            self._say(f"Refused: {error}")
        self._show_limits()

    def rest(self) -> None:
        """Stop drawing, end all hogs and remove their group; the controls stay, and a hog's button begins anew."""
        self.stop()
        self.pen = None
        _shut(self._pens)
        self._say("All hogs were ended. Start one to begin anew.")
        self._label_buttons()

    def _open(self) -> HogPen:
        """Return the pen, made now if there is none; without a limit on swap where the kernel counts none."""
        with self._opening:
            if self.pen is None:
                try:
                    pen = _started(self.limits)
                except FeatureMissing:
                    if self.limits.swap_bytes is None:
                        raise
                    self.limits = replace(self.limits, swap_bytes=None)
                    pen = _started(self.limits)
                self._pens.append(pen)
                self._sampler = Sampler(pen.cgroup, pen.pid)
                self.pen = pen
            return self.pen

    def _build_controls(self) -> None:
        me = weakref.ref(self)
        cpu, memory, pids = _positions(self.limits)
        self._sliders = {
            "cpu": layout.slider("cpu.max", unit="% of one CPU", low=5, high=_MOST_CPU_PERCENT, value=cpu, step=5),
            "memory": layout.slider("memory.max", unit="MiB", low=16, high=_MOST_MEMORY_MIB, value=memory, step=8),
            "pids": layout.slider("pids.max", unit="processes", low=4, high=_MOST_PIDS, value=pids),
        }
        for slider in self._sliders.values():
            slider.observe(lambda _: _call(me, "_slider_moved"), names="value")
        self._buttons = {
            name: layout.button(
                f"Start {name}", does=f"{name}: takes up to {hog.most}", on_click=partial(_call, me, "press", name)
            )
            for name, hog in HOGS.items()
        }
        for button in self._buttons.values():
            button.layout.width = "12em"  # the same for "Start" and "Stop": nothing jumps
        self._news = layout.status("Start a hog, then move its slider.")
        self._label_buttons()

    def _slider_moved(self) -> None:
        cpu, memory, pids = (self._sliders[name].value for name in ("cpu", "memory", "pids"))
        limits = replace(self.limits, cpus=cpu / 100, memory_bytes=int(memory) * MiB, pids=int(pids))
        if limits != self.limits:
            self.limit(limits)

    def _show_limits(self) -> None:
        for name, value in zip(("cpu", "memory", "pids"), _positions(self.limits), strict=True):
            self._sliders[name].value = value

    def _look(self) -> Moment:
        pen = self.pen
        if pen is None:
            return Moment(Sample(time_s=self._looked_s), self.limits)
        for name, reason in pen.collect().items():
            self._say(f"The {name} ended: {_in_words(name, reason)}. Start it again, or give it more.")
            self._label_buttons()
        sample = self._sampler.take()
        self._looked_s = sample.time_s
        return Moment(sample, self.limits)

    def _label_buttons(self) -> None:
        running = () if self.pen is None else self.pen.running
        for name, button in self._buttons.items():
            button.description = f"{'Stop' if name in running else 'Start'} {name}"

    def _say(self, text: str) -> None:
        layout.say(self._news, text)


def _started(limits: Limits) -> HogPen:
    pen = HogPen(limits)
    pen.start()
    return pen


def _shut(pens: list[HogPen]) -> None:
    while pens:
        pens.pop().close()


def _call(me: weakref.ref[CgroupSliders], method: str, *arguments: str) -> None:
    view = me()
    if view is not None and not view.closed:
        getattr(view, method)(*arguments)


def _positions(limits: Limits) -> tuple[int, int, int]:
    """Return where the sliders stand for ``limits``."""
    memory_mib = (limits.memory_bytes or _MOST_MEMORY_MIB * MiB) // MiB
    return round((limits.cpus or 1.0) * 100), memory_mib, limits.pids or _MOST_PIDS


def _in_words(name: str, reason: str) -> str:
    if name == "memory hog" and "SIGKILL" in reason:
        return "the kernel killed it, because the group was at its memory limit"
    return "its minute was over" if "timed out" in reason else reason


def _describe(moment: Moment) -> str:
    sample, limits = moment.sample, moment.limits
    if sample.pids is None:
        return "There is no group now: start a hog to make one."
    used = "not measured yet" if sample.cpu_percent is None else f"{sample.cpu_percent:.0f} % of one"
    cpu = f"CPU: {used}, limit {(limits.cpus or 0) * 100:.0f} %{_held_back(sample)}."
    memory = f"Memory: {_mib(sample.memory_bytes)} of {_mib(limits.memory_bytes)}, killed for it: {_count(sample.oom_kills)}."
    pids = f"Processes: {sample.pids} of {limits.pids}, refused: {_count(sample.pids_limit_hits)}."
    return f"{cpu} {memory} {pids}"


def _held_back(sample: Sample) -> str:
    if not sample.throttled_percent:
        return ""
    return f", stopped early in {sample.throttled_percent:.0f} % of the periods"


def _count(number: int | None) -> str:
    return "not counted here" if number is None else str(number)


def _mib(size_bytes: int | None) -> str:
    return "not counted here" if size_bytes is None else f"{size_bytes / MiB:.0f} MiB"
