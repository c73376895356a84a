"""The rules that a lesson's notebook must keep, each a function from a notebook to sentences about what breaks it.

They guard what a reader meets (short cells, alternative text, links that lead somewhere, no error left behind) and what nbval
silently lets through (a notebook that never ran passes every comparison).

Leaves out: style of the prose; the order Predict, run, What happened, Check, which people read better than programs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

__all__ = ["MOST_NOTEBOOK_BYTES", "TAGS", "must_be_folded", "problems_in"]

MOST_NOTEBOOK_BYTES = 1_000_000
MOST_CODE_LINES = 12
#: What each tag means: see the authors' guide in CONTRIBUTING.
TAGS = frozenset({"nbval-ignore-output", "exercise", "judge", "solution", "folded"})
#: Questions hold their answers in their code.
_ASKS = re.compile(r"\b(predict|quiz)\(")
_ANSWER = re.compile(r"\b(answer|right|why)\s*=")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def problems_in(notebook: Any, *, folder: Path) -> list[str]:
    """Return what is wrong with ``notebook``, which lies in ``folder``; an empty list if nothing is."""
    found = [*_execution(notebook), *_exercises(notebook)]
    imports_seen = False
    for number, cell in enumerate(notebook.cells, start=1):
        where = f"cell {number}"
        found += (f"{where}: {problem}" for problem in _tags(cell))
        if cell.cell_type == "markdown":
            found += (f"{where}: {problem}" for problem in _prose(cell.source, notebook=notebook, folder=folder))
        elif cell.cell_type == "code":
            found += (f"{where}: {problem}" for problem in _code(cell.source, may_import=not imports_seen))
            found += (f"{where}: {problem}" for output in cell.outputs for problem in _output(output))
            imports_seen = True
        else:
            found.append(f"{where}: only markdown and code cells are used, not {cell.cell_type}.")
    return found


def must_be_folded(cell: Any) -> bool:
    """Return whether the code of ``cell`` gives an answer away (a solution, a question) or is tagged as plumbing."""
    return bool({"solution", "folded"} & _tags_of(cell)) or bool(_ASKS.search(cell.source))


def _execution(notebook: Any) -> Iterator[str]:
    """Every code cell ran, once, from top to bottom (nbval passes a notebook that never ran)."""
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if not counts:
        yield "the notebook has no code: a lesson shows something real."
    elif counts != list(range(1, len(counts) + 1)):
        yield f"its cells were not run in order, once each: the execution counts are {counts}."


def _exercises(notebook: Any) -> Iterator[str]:
    """The untouched exercise fails its judge, and a folded solution after it passes."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for wanted, needs in (("exercise", "judge"), ("judge", "solution")):
        missing = sum(wanted in _tags_of(c) for c in cells) - sum(needs in _tags_of(c) for c in cells)
        if missing > 0:
            yield f"{missing} cell(s) tagged {wanted!r} have no cell tagged {needs!r} after them."
    for cell in cells:
        for tag, start in (("judge", "not yet:"), ("solution", "pass:")):
            if tag in _tags_of(cell) and not any(_plain(output).startswith(start) for output in cell.outputs):
                yield f"the cell tagged {tag!r} ({cell.source.splitlines()[-1]!r}) must say {start!r} when nobody has worked on it."


def _tags(cell: Any) -> Iterator[str]:
    for tag in _tags_of(cell) - TAGS:
        yield f"the tag {tag!r} has no meaning here: use one of {', '.join(sorted(TAGS))}."
    if cell.cell_type == "code" and must_be_folded(cell):
        if not cell.metadata.get("jupyter", {}).get("source_hidden"):
            yield "a question or a solution must be folded: build it with `make notebooks`."
        if _ANSWER.search(cell.source.split("\n")[0]):
            yield "the first line of a folded cell stays visible: write answer=, right= and why= on a later line."


def _code(source: str, *, may_import: bool) -> Iterator[str]:
    """Short, plain Python: no magics, no trailing semicolon, imports in the first code cell."""
    lines = [line for line in source.splitlines() if line.strip()]
    if len(lines) > MOST_CODE_LINES:
        yield f"{len(lines)} lines of code; at most {MOST_CODE_LINES}. Longer code belongs into labkit, shown by source()."
    if any(line.lstrip().startswith(("%", "!")) for line in lines) or "get_ipython(" in source:
        yield "magics and shell escapes are not Python: call labkit or the standard library."
        return
    if lines and lines[-1].split("#")[0].rstrip().endswith(";"):
        yield "a trailing semicolon hides an output here and not under nbval: assign to _ instead."
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        yield f"it is no Python: {error.msg}."
        return
    if not may_import and any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)):
        yield "imports belong into the first code cell."


def _output(output: Any) -> Iterator[str]:
    """No error was left behind, no widget id, and every figure says in words what it shows."""
    if output.output_type == "error":
        yield f"its output is an error ({output.get('ename')})."
    data = output.get("data", {})
    if any("widget" in mime for mime in data):
        yield "it stores a widget's random id: build it with `make notebooks`."
    page = _Images()
    page.feed(str(data.get("text/html", "")))
    if any(mime.startswith("image/") for mime in data) and not page.alts:
        yield "a figure has no alternative text: show it with labkit.charts.show(figure, alt=...)."
    if not all(page.alts):
        yield "an image in its output has an empty alt."


def _prose(text: str, *, notebook: Any, folder: Path) -> Iterator[str]:
    """Links lead to files and headings that exist; images say what they show."""
    bare = _FENCE.sub("", text)
    for bang, label, target in _LINK.findall(bare):
        if bang and not label.strip():
            yield f"the image {target!r} has no alternative text."
        if _EXTERNAL.match(target):
            continue
        path, _, heading = unquote(target).partition("#")
        if path and not _link_exists(folder / path):
            yield f"the link to {target!r} leads nowhere."
        elif not path and heading not in _headings(notebook):
            yield f"the link to {target!r} names no heading of this notebook."
    page = _Images()
    page.feed(bare)
    if not all(page.alts):
        yield "an <img> has no alternative text."


def _link_exists(path: Path) -> bool:
    """Return whether ``path`` is there; a lesson that is written but not built yet counts."""
    return path.exists() or (path.suffix == ".ipynb" and path.with_suffix(".py").exists())


def _headings(notebook: Any) -> set[str]:
    """Return the anchors that JupyterLab gives this notebook's headings: the text, blanks as hyphens."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return {
        heading.replace("`", "").replace("*", "").replace(" ", "-")
        for text in texts
        for heading in _HEADING.findall(text)
    }


def _tags_of(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def _plain(output: Any) -> str:
    """Return an output's text: what was printed, or the plain form of what was displayed."""
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


class _Images(HTMLParser):
    """Collects the ``alt`` of every ``<img>`` ("" where there is none)."""

    def __init__(self) -> None:
        super().__init__()
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.alts.append((dict(attrs).get("alt") or "").strip())
