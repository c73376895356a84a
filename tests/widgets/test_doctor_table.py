"""The table shows the rows of a lesson or of all, names rules and remedies, and counts what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.doctor import FEATURES, needs
from labkit.widgets.doctor_table import DoctorTable
from tests.lesson.test_needs import made_report


@pytest.fixture
def table() -> Iterator[DoctorTable]:
    """Return the table of a machine that refuses a memory limit and a fresh /proc, and close it."""
    made = DoctorTable(made_report("cgroup memory", "fresh /proc"))
    yield made
    made.close()


def test_all_rows_are_there_at_once(table: DoctorTable) -> None:
    assert [row.name for row in table.rows] == list(FEATURES)
    assert f"{len(FEATURES)} rows for the whole course: 2 refused." in table._words.value
    page = table._repr_mimebundle_()["text/html"]
    assert "✘ no" in page and "the cgroup is not delegated to this user" in page and "Run as root" in page
    assert 'scope="row"' in page and "<caption" in page


def test_a_lesson_shows_what_it_needs(table: DoctorTable) -> None:
    table._choice.value = "04 Control groups"
    wanted = needs("04")
    assert {row.name for row in table.rows} == {*wanted.requires, *wanted.uses}
    assert "1 refused" in table._words.value


def test_the_box_hides_what_works(table: DoctorTable) -> None:
    table._box.value = True
    assert [row.name for row in table.rows] == ["fresh /proc", "cgroup memory"]
    table._choice.value = "04 Control groups"
    assert [row.name for row in table.rows] == ["cgroup memory"]


def test_a_closed_table_stays_still(table: DoctorTable) -> None:
    table.close()
    table.close()
    assert table.widget.comm is None and repr(table) == "Live view: what this machine allows"
