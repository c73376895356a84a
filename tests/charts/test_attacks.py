"""The attack table as a picture: every cell says its outcome in words."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from labkit import charts
from labkit.charts import Frames
from labkit.charts.attacks import AttackChart, draw, word_for
from labkit.measure.attacks import ATTACKS, DEFENCES
from labkit.measure.chosen import Board
from labkit.measure.hostfacts import host_facts
from labkit.measure.outcomes import AttackTable, Outcome


def outcome(attack: str, defence: str, succeeded: bool | None, errno: str = "") -> Outcome:
    """Return one cell."""
    return Outcome(attack, defence, succeeded, errno, "")


def made_up_table() -> AttackTable:
    """Return a table in which everything gets through at the first level and nothing at the others."""
    outcomes = tuple(
        outcome(a.name, d.name, d is DEFENCES[0], "" if d is DEFENCES[0] else "ECONNREFUSED")
        for a in ATTACKS
        for d in DEFENCES
    )
    return AttackTable(host_facts(), ATTACKS, DEFENCES, outcomes)


def test_the_words_tell_all_outcomes_apart() -> None:
    assert word_for(None) == ""
    assert word_for(outcome("mount", "user", None)) == "?"
    assert word_for(outcome("mount", "user", True)) == "through"
    assert word_for(outcome("mount", "user", False, "EPERM")) == "EPERM"
    assert word_for(outcome("mount", "user", False)) == "stopped"


def test_the_table_has_a_word_for_every_cell_and_a_title_that_states_the_finding() -> None:
    figure, (axes,) = charts.figure(9.4, 5.0)
    draw(axes, made_up_table())
    said = [text.get_text().replace("\n", "") for text in axes.texts]
    assert said.count("through") == len(ATTACKS)
    assert said.count("ECONNREFUSED") == len(ATTACKS) * (len(DEFENCES) - 1)
    assert {attack.title for attack in ATTACKS} <= set(said)
    assert (
        axes.get_title(loc="left")
        == f"Of {len(ATTACKS)} attacks {len(ATTACKS)} get through at first, and none in the end"
    )
    figure.clear()


def test_words_fit_into_their_cells() -> None:
    figure, (axes,) = charts.figure(9.4, 5.0)
    draw(axes, made_up_table())
    figure.canvas.draw()
    cells = [patch.get_window_extent() for patch in axes.patches]
    words = [text.get_window_extent() for text in axes.texts if text.get_text().startswith("ECONN")]
    assert words
    assert all(any(cell.x0 <= word.x0 and word.x1 <= cell.x1 for cell in cells) for word in words)
    figure.clear()


def test_the_board_fills_row_by_row() -> None:
    table = made_up_table()
    none, every = ([o for o in table.outcomes if o.defence == d.name] for d in (DEFENCES[0], DEFENCES[-1]))
    frames = Frames(AttackChart(), width_in=8.2, height_in=4.6)

    def pixels(tried: int) -> np.ndarray:
        board = Board(("chroot",), tuple(none[:tried]), tuple(none), tuple(every))
        return np.asarray(Image.open(io.BytesIO(frames.png(board))).convert("RGB")).astype(int)

    empty, some, all_ = pixels(0), pixels(3), pixels(len(ATTACKS))
    changed = np.abs(some - empty).max(axis=2) > 32
    assert changed.any()
    assert not changed[:, : changed.shape[1] // 2].any(), "only the last column changes"
    assert (np.abs(all_ - empty).max(axis=2) > 32).sum() > 3 * changed.sum()
