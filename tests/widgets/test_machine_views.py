"""The views of lessons 01 and 02: weights, memory, boots, a console. Each has a first frame, moves, and leaves nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.charts import boots as boots_chart
from labkit.errors import FeatureMissing, InvalidSpec
from labkit.measure.boots import Boots
from labkit.measure.guest_console import GuestConsole, readable
from labkit.measure.recordable import find_recording
from labkit.measure.recording import Shown
from labkit.measure.shares import SharedCpu, Shares, nice_for
from labkit.measure.touching import MOST_TOUCHED_BYTES, Toucher
from labkit.units import MiB
from labkit.widgets.boot_view import boot_view
from labkit.widgets.console_view import ConsoleView
from labkit.widgets.cpu_shares import CpuShares
from labkit.widgets.touch_view import touch_view
from tests.support import requires


def wait_until(true: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Wait for ``true()``."""
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize("by_nice", [False, True])
def test_time_is_shared_by_weight_with_groups_and_with_nice(by_nice: bool) -> None:
    with SharedCpu((400, 100), by_nice=by_nice) as pair:
        shares = pair.measure(1.0)
        nice = [os.getpriority(os.PRIO_PROCESS, pid) for pid in pair.pids]
        affinity = {frozenset(os.sched_getaffinity(pid)) for pid in pair.pids}
        pids = pair.pids
    assert 2.0 < shares.ratio < 8.0
    assert affinity == {frozenset({min(os.sched_getaffinity(0))})}
    if by_nice:
        assert shares.by == "nice" and nice[1] - nice[0] == 6
    elif shares.by == "nice":
        assert shares.note, "it says why there is no group"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_nice_values_keep_the_ratio_of_the_weights() -> None:
    assert nice_for((300, 100)) == (0, 5)
    assert nice_for((100, 100)) == (0, 0)
    assert nice_for((1, 10_000)) == (19, 0)
    with pytest.raises(InvalidSpec, match="no two weights"):
        SharedCpu((0, 1))


def test_programs_run_while_the_view_runs_and_a_slider_moves_them() -> None:
    view = CpuShares(Shares("nice", (300, 100), (3.0, 1.0), (75.0, 25.0)))
    assert view.png.startswith(b"\x89PNG") and "promises 75 %" in view.sentence
    view.start()
    (pair,) = view._pairs
    pids = pair.pids
    view._sliders[0].value = 100
    assert pair.weights == (100, 100)
    frames = view.frames_drawn
    wait_until(lambda: view.frames_drawn > frames)
    view.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    view.close()


def test_asking_grows_the_size_and_touching_the_resident_set() -> None:
    with Toucher() as hand:
        hand.ask(0, 0)
        before = hand.take()
        hand.ask(256 * MiB, 0)
        asked = hand.take()
        hand.ask(256 * MiB, 32 * MiB)
        touched = hand.take()
        hand.ask(256 * MiB, 0)
        given_back = hand.take()
        with pytest.raises(InvalidSpec, match="touched"):
            hand.ask(256 * MiB, MOST_TOUCHED_BYTES + 1)
        pid = hand.pid
    assert asked.size_bytes - before.size_bytes > 250 * MiB > 8 * MiB > asked.resident_bytes - before.resident_bytes
    assert 31 * MiB < touched.resident_bytes - asked.resident_bytes < 40 * MiB
    assert touched.page_faults - asked.page_faults >= 32 * MiB // os.sysconf("SC_PAGE_SIZE")
    assert given_back.resident_bytes < asked.resident_bytes + 8 * MiB
    assert not Path(f"/proc/{pid}").exists()


def test_the_sliders_of_memory_are_carried_out_while_the_view_stands_still() -> None:
    view = touch_view(asked_mib=64, touched_mib=16)
    assert "Asked for 64 MiB and touched 16 MiB" in view.sentence
    slider = view.widget.children[0]
    slider.value = 128
    assert "Asked for 128 MiB" in view.sentence
    view.close()


def test_a_recorded_boot_is_the_first_frame_and_marked() -> None:
    found = find_recording("boot")
    view = boot_view(Shown(found.result, found, "There is no guest kernel."))
    assert "not this machine" in view.sentence and "kernel " in view.sentence
    view.close()
    assert boots_chart.words_for(Boots()) == "No machine has booted yet: press Start."
    with pytest.raises(InvalidSpec, match="0 boots"):
        boot_view(boots=0)


@requires("vm", "program:busybox")
@pytest.mark.timeout(120)
def test_a_machine_boots_in_the_view_and_it_stops_by_itself() -> None:
    view = boot_view(boots=1)
    view.start()
    wait_until(lambda: not view.running and "1 boots, the fastest in" in view.sentence, within_s=60)
    view.close()


@requires("vm", "program:busybox")
@pytest.mark.timeout(120)
def test_what_is_typed_is_done_by_the_guest_and_a_panic_ends_it() -> None:
    view = ConsoleView("earlier words")
    assert "earlier words" in view.text
    view.start()
    wait_until(lambda: "Running" in view.sentence, within_s=60)
    view._input.value = "echo $((6*7))-$(uname -n)"
    wait_until(lambda: "42-labkit-guest" in view.text)
    assert view._input.value == ""
    view.enter("echo begun; sleep 1000; echo woken")
    wait_until(lambda: "\nbegun" in view.text)
    view.interrupt()
    view.enter("echo still-here")
    wait_until(lambda: "\nstill-here" in view.text)
    assert "\nwoken" not in view.text
    view.enter("echo c > /proc/sysrq-trigger")
    wait_until(lambda: not view.running, within_s=60)
    assert "panicked" in view.sentence and not view._start_button.disabled
    view.close()


def test_a_machine_that_cannot_be_started_is_a_sentence() -> None:
    def none() -> GuestConsole:
        raise FeatureMissing("There is no QEMU.", remedy="Run `labkit setup vm`.")

    view = ConsoleView("recorded words", source="Recording made on another machine.", make=none)
    assert "Recording made on another machine." in view._log.value
    view.start()
    wait_until(lambda: "Not possible: There is no QEMU." in view.sentence)
    assert not view.running and "recorded words" in view.text
    view.close()
    view.start()
    assert not view.running


def test_a_console_is_shown_as_plain_text_and_never_grows() -> None:
    assert readable("\x1b[31mred\x1b[0m\r\n$ lx\x08 \x08s\r\n\x07") == "red\n$ ls\n"
    assert readable("a\n" * 10_000).count("\n") == 199
    view = ConsoleView()
    view.show_text("<b>" + "x\n" * 5000)
    assert view._log.value.count("\n") < 45 and "<b>" not in view._log.value
    view.close()
