from __future__ import annotations

import itertools
import json

import pytest

from labkit.errors import InvalidSpec, LabkitError
from labkit.measure.loads import WORK
from labkit.measure.overhead import LOADS, Overhead, OverheadRow, measure_overhead
from tests.support import requires

pytestmark = requires("userns", "overlay-userns")


@pytest.fixture(scope="module")
def overhead() -> Overhead:
    return measure_overhead(3)


def test_each_load_has_a_time_for_each_run_in_each_place(overhead: Overhead) -> None:
    assert [row.name for row in overhead.rows] == [name for name, _ in LOADS] == list(WORK)
    assert {(len(row.process_ms), len(row.container_ms)) for row in overhead.rows} == {(3, 3)}
    assert Overhead.from_json(json.loads(json.dumps(overhead.to_json()))) == overhead


def test_computing_costs_a_container_little(overhead: Overhead) -> None:
    # The best of three, measured again if need be: other work on the machine adds time to one side for a while, a
    # container's own cost is there every time.
    rows = itertools.chain([overhead.row("cpu")], (measure_overhead(3).row("cpu") for _ in range(4)))
    assert any(min(row.container_ms) < 1.5 * min(row.process_ms) for row in rows)


def test_the_ratio_is_that_of_the_medians() -> None:
    assert OverheadRow("x", "x", (1.0, 2.0, 9.0), (3.0, 4.0, 5.0)).ratio == 2.0


def test_no_runs_are_refused() -> None:
    with pytest.raises(InvalidSpec):
        measure_overhead(0)


def test_loads_that_die_are_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.measure.overhead.inner_command", lambda *_, **__: ["sh", "-c", "echo bad >&2; exit 3"])
    with pytest.raises(LabkitError, match="did not run: bad"):
        measure_overhead(1)
