"""The documents say what the programs do: errors that are quoted are printed, commands that are named exist."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support import PROJECT

DOCS = PROJECT / "docs"
#: Said by Jupyter itself, not by labkit.
OF_JUPYTER = {"The port 8888 is already in use"}


def source_text() -> str:
    """Return all of labkit's source with string pieces joined, as they are printed."""
    paths = [*(PROJECT / "labkit").rglob("*.py"), PROJECT / "labkit/setup/bootstrap.sh"]
    text = "\n".join(path.read_text() for path in paths)
    return re.sub(r'"\s*\n\s*f?"', "", text)


def symptoms() -> list[str]:
    """Return what the first columns of the tables quote as printed."""
    rows = re.findall(r"^\| (.+?) \| ", (DOCS / "troubleshooting.md").read_text(), re.M)
    quoted = [word for row in rows for word in re.findall(r"`([^`]+)`", row)]
    return [word for word in quoted if len(word) > 8 and word not in OF_JUPYTER and not word.startswith(("make ", "?"))]


def test_every_error_that_is_quoted_is_one_that_labkit_prints() -> None:
    source = source_text()
    assert len(symptoms()) > 15
    missing = [word for word in symptoms() if word.rstrip("…") not in source]
    assert not missing, missing


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.M))
    for path in [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *DOCS.glob("*.md")]:
        named = set(re.findall(r"`make ([a-z]+)[^`]*`|^\$ make ([a-z]+)", path.read_text(), re.M))
        assert {word for pair in named for word in pair if word} <= targets, path.name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/teacher.md", "docs/troubleshooting.md"])
def test_every_labkit_command_that_a_document_names_exists(name: str) -> None:
    words = set(re.findall(r"(?:`|\$ )(?:\.venv/bin/)?labkit ([a-z]+)", (PROJECT / name).read_text()))
    done = subprocess.run(
        [sys.executable, "-m", "labkit", "--help"], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    known = set(re.findall(r"^    ([a-z]+)\b", done.stdout, re.M))
    assert words <= known, words - known


def test_the_front_page_lists_all_lessons_and_shows_pictures_with_words() -> None:
    text = (PROJECT / "README.md").read_text()
    rows = re.findall(r"^\| (\d\d) \| \[[^\]]+\]\(notebooks/(\w+)\.ipynb\)", text, re.M)
    assert [number for number, _ in rows] == [f"{number:02}" for number in range(15)]
    assert [name for _, name in rows] == sorted(path.stem for path in (PROJECT / "notebooks").glob("[0-9]*.ipynb"))
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)
    assert len(pictures) >= 3 and all(len(alt) > 40 and (PROJECT / path).is_file() for alt, path in pictures)
