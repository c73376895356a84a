"""A live view is cheap, lets other work run, says what it shows, and ends with whatever it belongs to."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from labkit.charts import label_axes, line
from labkit.errors import InvalidSpec, InvalidState
from labkit.widgets import LiveView, layout, live
from tests.notebooks.kernel import printed_by, run_cells

MOST_CPU = 0.15


class Waves:
    """Four lines of 300 points, as a chart of four groups' CPU time over a minute has."""

    def setup(self, figure: Any) -> Sequence[Any]:
        """Make the axes and the lines."""
        axes = figure.add_subplot()
        label_axes(axes, title="CPU time follows the weights", x="time (s)", y="CPU (%)")
        axes.set(xlim=(0, 60), ylim=(0, 100))
        self.x = [place / 5 for place in range(300)]
        self.lines = [line(axes, self.x, [0] * 300, concept=name) for name in ("process", "container", "vm", "peer")]
        return self.lines

    def update(self, sample: float) -> None:
        """Move the lines."""
        for number, drawn in enumerate(self.lines):
            drawn.set_ydata([50 + 40 * math.sin(x / 5 + number + sample) for x in self.x])


def make(take: Any = time.monotonic, **changed: Any) -> LiveView[Any]:
    """Return a view that is not running."""
    said: dict[str, Any] = {"title": "waves", "alt": "Lines: CPU time of four groups", "describe": "at {:.1f}".format}
    return LiveView(take, Waves(), **(said | changed))


@pytest.fixture
def view() -> Iterator[LiveView[Any]]:
    """Return a view that is not running, and close it."""
    made = make()
    yield made
    made.close()


def drawing_threads() -> list[threading.Thread]:
    """Return the threads of live views."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("labkit-live")]


def wait_until(true: Any, *, within_s: float = 5.0) -> None:
    """Wait for ``true()``."""
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.01)


def test_the_first_frame_and_its_sentence_are_there_before_start(view: LiveView[Any]) -> None:
    assert view.png.startswith(b"\x89PNG") and not view.running
    bundle = view._repr_mimebundle_()
    assert bundle["text/plain"] == "Live view: waves"
    assert 'alt="Lines: CPU time of four groups. at ' in bundle["text/html"]
    assert "data:image/png;base64," in bundle["text/html"]


def test_it_draws_five_frames_a_second_for_at_most_15_percent_of_a_core(view: LiveView[Any]) -> None:
    begun_s, begun_cpu_s, begun_frames = time.monotonic(), time.process_time(), view.frames_drawn
    view.start()
    time.sleep(3)
    view.stop()
    elapsed_s, cpu_s = time.monotonic() - begun_s, time.process_time() - begun_cpu_s
    assert 11 <= view.frames_drawn - begun_frames <= 17
    assert cpu_s / elapsed_s <= MOST_CPU, f"{cpu_s / elapsed_s:.1%} of a core"


def test_a_dear_chart_becomes_a_slower_view_not_a_busy_machine() -> None:
    def take() -> float:
        until_s = time.thread_time() + 0.05
        while time.thread_time() < until_s:
            pass
        return 0.0

    view = make(take)
    begun_s, begun_cpu_s = time.monotonic(), time.process_time()
    view.start()
    time.sleep(3)
    view.stop()
    assert (time.process_time() - begun_cpu_s) / (time.monotonic() - begun_s) <= MOST_CPU + 0.03
    assert view.frames_drawn > 4
    view.close()


def test_start_and_stop_are_safe_to_press_twice_and_leave_no_thread(view: LiveView[Any]) -> None:
    view.start()
    view.start()
    assert len(drawing_threads()) == 1 and view.running
    assert view._start_button.disabled and not view._stop_button.disabled
    view.stop()
    view.stop()
    assert drawing_threads() == [] and not view.running
    drawn = view.frames_drawn
    time.sleep(0.3)
    assert view.frames_drawn == drawn
    assert "Stopped." in view._line.value and view._stop_button.disabled
    view._start_button.click()
    wait_until(lambda: view.frames_drawn > drawn)
    view._stop_button.click()
    assert drawing_threads() == []


def test_the_sentence_changes_seldom_while_it_runs(view: LiveView[Any]) -> None:
    said: list[str] = []
    view._words.observe(lambda change: said.append(change["new"]), names="value")
    view.start()
    time.sleep(1.5)
    view.stop()
    assert len(said) <= 1


def test_a_control_that_is_moved_while_it_stands_gives_one_frame() -> None:
    slider = layout.slider("height", unit="cm", low=1, high=9, value=3)
    view = make(lambda: float(slider.value), controls=[slider])
    drawn, png = view.frames_drawn, view.png
    slider.value = 7
    assert view.frames_drawn == drawn + 1 and view.png != png
    assert view.sentence == "at 7.0"
    view.close()


def test_the_end_of_what_is_measured_ends_it_with_the_reason() -> None:
    left = [1.0, 2.0]

    def take() -> float:
        if not left:
            raise InvalidState("the container has ended.")
        return left.pop()

    view = make(take)
    view.start()
    wait_until(lambda: not view.running)
    wait_until(lambda: "Stopped: the container has ended." in view._line.value)
    assert drawing_threads() == []
    view.close()


def test_a_view_that_nobody_stops_ends_by_itself() -> None:
    view = make(run_for_s=0.5)
    view.start()
    wait_until(lambda: not view.running)
    wait_until(lambda: "Press Start to go on" in view._line.value)
    view.close()


def test_closing_ends_thread_widgets_and_what_was_shown_once() -> None:
    ended: list[int] = []
    view = make(on_close=lambda: ended.append(1))
    view.start()
    view.close()
    view.close()
    assert ended == [1] and drawing_threads() == [] and view.widget.comm is None
    view.start()
    assert drawing_threads() == []


def test_a_view_that_is_gone_is_not_drawn_and_its_widgets_are_closed() -> None:
    view = make()
    widget, seen = view.widget, weakref.ref(view)
    view.start()
    del view
    wait_until(lambda: gc.collect() >= 0 and seen() is None and drawing_threads() == [])
    assert widget.comm is None


def test_the_end_of_the_process_stops_all() -> None:
    views = [make(), make()]
    for view in views:
        view.start()
    live.stop_all()
    assert drawing_threads() == []
    for view in views:
        view.close()


@pytest.mark.parametrize("wrong", [{"title": " "}, {"alt": "x"}, {"frames_per_s": 0}, {"frames_per_s": 31}])
def test_a_view_without_words_or_with_an_absurd_rate_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        make(**wrong)


IN_A_NOTEBOOK = [
    "import time\nfrom tests.widgets.test_live import make\nview = make()\nview",
    "view.start()\nstart = time.monotonic(), time.process_time(), view.frames_drawn\ntime.sleep(3)",
    "print((time.process_time() - start[1]) / (time.monotonic() - start[0]), view.frames_drawn - start[2])",
    # Another cell is hardly slower for it: the work of a second, with and without the view.
    "def work():\n    begun = time.perf_counter()\n    sum(range(5_000_000))\n    return time.perf_counter() - begun\n"
    "running = min(work() for _ in range(7))\nview.stop()\nprint(running / min(work() for _ in range(5)))",
    "view.start()",
]


def test_in_a_jupyter_kernel_it_stays_under_15_percent_and_dies_with_it() -> None:
    begun_s = time.monotonic()
    outputs, shutdown_s = run_cells(IN_A_NOTEBOOK)
    cpu, frames = printed_by(outputs[2]).split()
    assert float(cpu) <= MOST_CPU, f"{float(cpu):.1%} of a core with its messages"
    assert int(frames) >= 11
    assert float(printed_by(outputs[3])) < 2
    assert shutdown_s < 8, (
        f"the jupyter_kernel took {shutdown_s:.1f} s to end ({time.monotonic() - begun_s:.0f} s in all)"
    )
