"""What the picture of desired and actual state says, in words and in boxes."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.figure import Figure

from labkit.charts.desired import DesiredChart, words_for
from labkit.compose.actual import Actual, Found
from labkit.compose.containers import config_hash
from labkit.compose.model import Network, NetworkUse, Project, Service
from labkit.compose.states import Replica, States, states_of
from labkit.widgets.desired_view import describe

WEB = Service("web", "img", networks={"default": NetworkUse()}, replicas=2)
PROJECT = Project("p", "/x", {"web": WEB}, {"default": Network("p_default")})
ONE = Found("id1", "p-web-1", "web", 1, config_hash(PROJECT, WEB, "i"), "running")


def states(*found: Found) -> States:
    return states_of(PROJECT, Actual(found), {"web": "i"})


def test_each_replica_is_compared_with_what_is_wanted() -> None:
    old = replace(ONE, number=3, name="p-web-3", config_hash="old")
    assert states(ONE, old).replicas == (
        Replica("web-1", True, "running", True), Replica("web-2", True, "", False), Replica("web-3", False, "running", False),
    )  # fmt: skip
    assert not states(ONE).settled
    assert states(ONE, replace(ONE, number=2)).settled


def test_health_counts_where_there_is_a_check() -> None:
    assert states(replace(ONE, health="starting")).replicas[0].state == "starting"
    assert not states(replace(ONE, health="starting")).replicas[0].settled
    assert states(replace(ONE, health="healthy")).replicas[0].settled


def test_words_say_what_the_boxes_show() -> None:
    assert words_for(Replica("web-1", True, "running", False)) == ("wanted", "running, of an older kind")
    assert words_for(Replica("web-1", False, "", False)) == ("not wanted", "nothing")
    assert describe(states(ONE)) == "2 wanted, 1 as they should be. Not yet: web-2."
    assert describe(states(ONE, replace(ONE, number=2))) == "2 wanted, 2 there: nothing to do."


def test_a_missing_replica_has_a_dashed_box() -> None:
    figure, chart = Figure(), DesiredChart()
    chart.setup(figure)
    chart.update(states(ONE))
    boxes = [patch for patch in figure.axes[0].patches if patch.get_visible()]
    assert [box.get_linestyle() for box in boxes] == ["-", "-", "-", "--"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"web-1", "web-2", "wanted", "running", "nothing"} <= set(texts)
