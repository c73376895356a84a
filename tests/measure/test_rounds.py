"""A race goes on round after round for as long as somebody asks for the next one."""

from __future__ import annotations

import pytest

from labkit.errors import InvalidSpec
from labkit.measure.startup import rounds
from tests.support import requires


@requires("userns", "program:busybox")
def test_each_round_adds_one_sample_to_everybody_once_the_warm_up_is_over() -> None:
    going = rounds(["container", "process"], warm_up=2)
    seen = [next(going) for _ in range(5)]
    going.close()  # the leak check of all tests looks for what the contenders left
    assert [race.rounds for race in seen] == [0, 0, 1, 2, 3]
    assert [[len(row.samples_ms) for row in race.rows] for race in seen] == [[0, 0], [0, 0], [1, 1], [2, 2], [3, 3]]
    assert [row.name for row in seen[-1].rows] == ["process", "container"]
    assert seen[-1].rows[1].samples_ms[:2] == seen[-2].rows[1].samples_ms


def test_nobody_unknown_takes_part() -> None:
    with pytest.raises(InvalidSpec, match="does not take part"):
        next(rounds(["snail"]))
