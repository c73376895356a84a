"""A tick starts one probe; picture, sentence and table say what it found; a refusal is said and breaks nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.errors import SetupError
from labkit.linux.constants import NS
from labkit.measure.isolation import Isolation
from labkit.widgets.isolation_matrix import IsolationView
from tests.charts.test_isolation import isolation
from tests.support import requires

NAMES = {NS.PID: "pid", NS.NET: "net", NS.UTS: "uts"}


class Probe:
    """Counts the calls, and refuses the time namespace."""

    def __init__(self) -> None:
        self.asked: list[NS] = []

    def __call__(self, namespaces: NS) -> Isolation:
        self.asked.append(namespaces)
        if NS.TIME in namespaces:
            raise SetupError("The kernel refuses a time namespace.", step="clone", errno=22)
        return isolation(*(name for kind, name in NAMES.items() if kind in namespaces))


@pytest.fixture
def view() -> Iterator[IsolationView]:
    """Return a view with the pid box ticked, and close it."""
    made = IsolationView(NS.PID, probe=Probe())
    yield made
    made.close()


def asked(view: IsolationView) -> list[NS]:
    """Return what the view's probe was asked."""
    assert isinstance(view._probe, Probe)
    return view._probe.asked


def test_the_first_frame_is_there_at_once_and_says_the_same_in_words(view: IsolationView) -> None:
    assert asked(view) == [NS.PID] and view.png.startswith(b"\x89PNG")
    assert view.sentence.startswith("In namespaces of its own (pid), 2 of ")
    bundle = view._repr_mimebundle_()
    assert bundle["text/plain"] == repr(view) == "Live view: what a process in namespaces can see"
    assert view.sentence.split(":")[0] in bundle["text/html"] and "<table>" in bundle["text/html"]


def test_a_tick_is_one_probe_and_changes_the_picture(view: IsolationView) -> None:
    before = view.png
    view._boxes[NS.NET].value = True
    assert asked(view) == [NS.PID, NS.PID | NS.NET] and view.png != before
    assert "network interfaces" in view.sentence
    view._boxes[NS.PID].value = False
    assert asked(view)[-1] == NS.NET


def test_many_boxes_at_once_are_one_probe(view: IsolationView) -> None:
    view.tick(NS.UTS | NS.NET)
    assert asked(view) == [NS.PID, NS.UTS | NS.NET]
    assert [kind for kind, box in view._boxes.items() if box.value] == [NS.NET, NS.UTS]
    view._boxes[NS.UTS].value = False
    assert asked(view)[-1] == NS.NET


def test_a_refusal_is_said_and_the_next_tick_works(view: IsolationView) -> None:
    assert view.tick(NS.TIME) is None
    assert "Not possible: The kernel refuses a time namespace." in view._words.value
    assert view.tick(NS.UTS) is not None
    assert "uts" in view.sentence


def test_the_boxes_have_names_and_say_what_they_separate(view: IsolationView) -> None:
    assert [box.description for box in view._boxes.values()] == [
        "user", "mount", "pid", "net", "ipc", "uts", "cgroup", "time"]  # fmt: skip
    assert all("A namespace of its own for: " in box.tooltip for box in view._boxes.values())


def test_a_closed_view_is_gone(view: IsolationView) -> None:
    view.close()
    view.close()
    assert view.widget.comm is None
    view.look()
    assert len(asked(view)) == 1


@requires("userns")
def test_the_real_probe_answers() -> None:
    view = IsolationView(NS.UTS)
    assert view.result is not None
    assert view.result.finding("hostname").sees_host is False and view.result.finding("interfaces").sees_host is True
    view.close()
