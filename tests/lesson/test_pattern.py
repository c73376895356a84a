"""Every lesson of the course keeps its pattern: what it opens and closes with, what is asked and judged, and where its links lead.

Each rule is a function from a lesson to sentences about what it lacks; the last test breaks each of them on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from labkit.charts.drawings import PICTURES, drawn
from labkit.lesson.build import read_source_notebook
from tests.support import PROJECT

FOLDER = PROJECT / "notebooks"
PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
NAMES = [path.stem for path in PATHS]
MOST_MINUTES = 30
#: Words and lines of code that one reads in a minute, of a text on a subject that is new.
WORDS, LINES = 200, 20
SECTIONS = ("## In the real world", "## Further reading", "## Summary")
GLOSSARY = re.compile(r"\[[^\]]+\]\(glossary\.md#([^)]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(figures/([a-z_]+)\.svg\)")


@dataclass(frozen=True)
class Lesson:
    """One lesson's source, in pieces."""

    name: str
    cells: tuple[Any, ...]

    @cached_property
    def prose(self) -> str:
        return "\n\n".join(cell.source for cell in self.cells if cell.cell_type == "markdown")

    @cached_property
    def code(self) -> str:
        return "\n\n".join(cell.source for cell in self.cells if cell.cell_type == "code")

    def tagged(self, tag: str) -> list[Any]:
        return [cell for cell in self.cells if tag in cell.metadata.get("tags", ())]

    def section(self, heading: str) -> str:
        return self.prose.partition(f"{heading}\n")[2].split("\n## ")[0]


@cache
def lesson_of(name: str) -> Lesson:
    """Return the lesson ``name``, read from its source."""
    return Lesson(name, tuple(read_source_notebook(FOLDER / f"{name}.py").cells))


def opening(lesson: Lesson) -> Iterator[str]:
    """It opens with title, question, goals, and the time it takes to read, half an hour at most and about what its length says."""
    first = lesson.cells[0].source
    if not re.match(rf"# {lesson.name[:2]} \S", first):
        yield "the title begins with the lesson's number"
    if "**Question.**" not in first or "?" not in first.partition("**Question.**")[2].split("\n\n")[0]:
        yield "it opens with a question"
    if len(re.findall(r"^- ", first.partition("**Afterwards you can**\n")[2], re.M)) < 2:
        yield "**Afterwards you can** and a list of goals"
    stated = re.search(r"\*\*Time:\*\* about (\d+) minutes to read, (\d+) for the exercises\. \*\*You need\*\* ", first)
    if stated is None:
        yield "**Time:** about N minutes to read, M for the exercises. **You need** ..."
        return
    words = len(re.findall(r"\w+", re.sub(r"```.*?```", "", lesson.prose, flags=re.S)))
    shown = [
        cell for cell in lesson.cells if cell.cell_type == "code" and "folded" not in cell.metadata.get("tags", ())
    ]
    lines = sum(bool(line.strip()) for cell in shown for line in cell.source.splitlines())
    minutes = words / WORDS + lines / LINES
    if int(stated[1]) > MOST_MINUTES or not minutes / 1.7 < int(stated[1]) < minutes * 1.7:
        yield f"it says {stated[1]} minutes to read; its length says {minutes:.0f}"


def neighbours(lesson: Lesson) -> Iterator[str]:
    """Its first cell links to the lesson before, the glossary and the lesson after; its last text to the next one."""
    number = NAMES.index(lesson.name)
    before, after = NAMES[number - 1 : number], NAMES[number + 1 : number + 2]
    last_line = lesson.cells[0].source.rstrip().splitlines()[-1]
    wanted = [*(f"{name}.ipynb" for name in before), "glossary.md", *(f"{name}.ipynb" for name in after)]
    if re.findall(r"\]\(([^)]+)\)", last_line) != wanted:
        yield f"the first cell ends with links to {', '.join(wanted)}"
    closing = next(cell.source for cell in reversed(lesson.cells) if cell.cell_type == "markdown").rstrip()
    target = f"{after[0]}.ipynb" if after else f"{NAMES[0]}.ipynb"
    if target not in closing.split("\n\n")[-1]:
        yield f"the last text ends with a link to {target}"
    if after and not re.search(rf"^Next: \[{after[0][:2]} [^\]]+\]\({re.escape(target)}\)\.$", closing, re.M):
        yield f"Next: [{after[0][:2]} Title]({target})."


def asking(lesson: Lesson) -> Iterator[str]:
    """It asks before it shows, compares what happened, checks claims, and has a quiz; it is remembered under its own name."""
    asked = re.findall(r"^(\w+) = lesson\.predict\(", lesson.code, re.M)
    if len(asked) < 2:
        yield "at least two predictions"
    for name in set(asked):
        if len(re.findall(rf"\b{name}\.compare\(", lesson.code)) < asked.count(name):
            yield f"the prediction {name} is compared with what happened"
    if lesson.code.count("lesson.check(") < 3:
        yield "at least three checks"
    if "lesson.quiz(" not in lesson.code:
        yield "a quiz"
    if f'lesson.begin("{lesson.name}")' not in lesson.code:
        yield f'lesson.begin("{lesson.name}")'


def exercises(lesson: Lesson) -> Iterator[str]:
    """At least two exercises, each a task with steps that look at effects, an empty cell, a judge, a folded solution."""
    cells = [cell for cell in lesson.cells if cell.cell_type == "code"]
    tags = [tag for cell in cells for tag in cell.metadata.get("tags", ()) if tag in ("exercise", "judge", "solution")]
    if len(tags) < 6 or tags != ["exercise", "judge", "solution"] * (len(tags) // 3):
        yield f"exercise, judge and solution follow one another: {tags}"
    for cell in lesson.tagged("exercise"):
        body = re.sub(r'""".*?"""', "", cell.source.partition(":\n")[2], flags=re.S)
        if body.strip() and "own=[" not in body:
            yield f"the exercise cell is empty: {body.strip()!r}"
    for cell in lesson.tagged("judge"):
        if ".judge(" not in cell.source:
            yield "a judge's cell calls judge()"
    for cell in lesson.tagged("solution"):
        if ".prove(" not in cell.source:
            yield "a solution's cell calls prove()"
    tasks = [cell.source for cell in cells if "lesson.exercise(" in cell.source]
    hints = len(re.findall(r"hints=\[", lesson.code))
    if hints < len(tasks):
        yield f"{len(tasks)} exercises have hints for {hints} steps only"


def closing(lesson: Lesson) -> Iterator[str]:
    """It closes with the real world, the same in a shell, further reading, a summary and a cell that cleans up and checks that."""
    places = [lesson.prose.find(f"\n{heading}\n") for heading in SECTIONS]
    if -1 in places or places != sorted(places):
        yield f"{', '.join(SECTIONS)}, in this order"
    if not re.search(r"The same in a shell[^\n]*:\n\n```sh\n", lesson.prose):
        yield "The same in a shell: with a block of commands"
    reading = lesson.section("## Further reading")
    if len(re.findall(r"\b[a-z_0-9-]+\([1-8]\)|<https://", reading)) < 3:
        yield "three manual pages or specifications to read further"
    if len(re.findall(r"^- \*?\*?\w", lesson.section("## Summary"), re.M)) < 3:
        yield "a summary of three points"
    last = lesson.cells[-1]
    if last.cell_type != "code" or "lesson.check(" not in last.source:
        yield "the last cell cleans up, and checks that"


def words_and_pictures(lesson: Lesson) -> Iterator[str]:
    """Words of its own are linked to the glossary, where they exist; a drawn picture has the words that the drawing has."""
    linked = GLOSSARY.findall(lesson.prose)
    if len(set(linked)) < 2:
        yield "at least two words are linked to the glossary"
    for anchor in linked:
        # As GitHub and JupyterLab both make anchors: only what is in lower case is the same in both.
        if anchor not in anchors() or anchor != anchor.lower():
            yield f"the glossary has no {anchor!r}"
    for alt, name in IMAGE.findall(lesson.prose):
        if " ".join(alt.split()) != drawn(name).alt:
            yield f"the alternative text of {name} is not the drawing's"


RULES: tuple[Callable[[Lesson], Iterator[str]], ...] = (
    opening, neighbours, asking, exercises, closing, words_and_pictures,
)  # fmt: skip


@cache
def anchors() -> frozenset[str]:
    """Return the anchors of the glossary's entries."""
    text = (FOLDER / "glossary.md").read_text()
    return frozenset(word.replace(" ", "-") for word in re.findall(r"^### (.+)$", text, re.M))


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_has_all_that_the_pattern_asks_for(name: str) -> None:
    lacking = [f"{rule.__name__}: {sentence}" for rule in RULES for sentence in rule(lesson_of(name))]
    assert not lacking, f"{name} lacks:\n" + "\n".join(lacking)


def test_the_course_has_fifteen_lessons_and_lesson_00_lists_them() -> None:
    assert [name[:2] for name in NAMES] == [f"{number:02}" for number in range(15)]
    listed = re.findall(r"^\| \[(\d\d) [^\]]+\]\((\w+)\.ipynb\) \| [^|]+\? \|$", lesson_of(NAMES[0]).prose, re.M)
    assert [name for _, name in listed] == NAMES[1:]
    assert all(number == name[:2] for number, name in listed)


def test_every_drawn_picture_is_shown_in_a_lesson() -> None:
    shown = {name for lesson in map(lesson_of, NAMES) for _, name in IMAGE.findall(lesson.prose)}
    assert shown == set(PICTURES)


def test_the_glossary_says_each_word_once_with_a_lesson_and_mostly_a_page_to_read() -> None:
    text = (FOLDER / "glossary.md").read_text()
    entries = dict(re.findall(r"^### (.+)\n((?:.+\n)+)", text, re.M))
    assert len(entries) == len(re.findall(r"^### ", text, re.M)) == len({head.lower() for head in entries}) > 70
    for head, body in entries.items():
        targets = re.findall(r"\]\((\d\d_\w+)\.ipynb\)", body)
        assert targets and set(targets) <= set(NAMES), f"{head} names no lesson that shows it"
        assert any(
            head.split()[0].lower()[:7] in (lesson_of(target).prose + lesson_of(target).code).lower()
            for target in targets
        ), f"{head} does not occur in {targets}"
        assert len(body.split()) < 60, f"{head} is an essay"
    with_source = [head for head, body in entries.items() if re.search(r"\(\d\)|\*[A-Za-z]|\.rst|RFC|\.md", body)]
    assert len(with_source) > 0.75 * len(entries)


def test_words_that_are_never_bare_stand_with_their_adjective() -> None:
    for lesson in map(lesson_of, NAMES):
        for wrong in (
            r"\bVM images?\b",
            r"\bvirtual machine images?\b",
            r"\bthe notebook's kernel\b",
            r"\bcontainer kernel\b",
        ):
            assert not re.search(wrong, lesson.prose, re.I), f"{lesson.name}: {wrong}"


BREAKS: dict[str, Callable[[str], str]] = {
    "opening": lambda text: text.replace("minutes to read", "minutes"),
    "neighbours": lambda text: text.replace("glossary.md)", "03_namespaces.ipynb)"),
    "asking": lambda text: text.replace("lesson.quiz(", "print("),
    "exercises": lambda text: text.replace(".prove(", ".trust("),
    "closing": lambda text: text.replace("## Summary", "## In short"),
    "words_and_pictures": lambda text: text.replace("glossary.md#capability", "glossary.md#superpower"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_can_be_broken(rule: Callable[[Lesson], Iterator[str]], tmp_path: Path) -> None:
    whole = (FOLDER / "06_container_by_hand.py").read_text()
    path = tmp_path / "06_container_by_hand.py"
    path.write_text(BREAKS[rule.__name__](whole))
    broken = replace(lesson_of("06_container_by_hand"), cells=tuple(read_source_notebook(path).cells))
    assert list(rule(broken))
