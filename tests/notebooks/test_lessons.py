"""Every lesson of the course agrees with its source and keeps the rules; nbval runs the cells themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.lesson.build import check_built
from tests.support import PROJECT

FOLDER = PROJECT / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize("source_path", SOURCES, ids=lambda path: path.stem)
def test_notebook_and_source_agree_and_keep_the_rules(source_path: Path) -> None:
    problems = check_built(source_path)
    assert problems == [], "\n".join(problems)


def test_there_is_no_notebook_without_source() -> None:
    built = {path.stem for path in FOLDER.glob("*.ipynb")}
    assert built <= {path.stem for path in SOURCES}
