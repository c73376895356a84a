"""Each rule of a lesson has a notebook that breaks it, and the one that breaks none passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit.lesson.rules import problems_in

PNG = {"image/png": "aGk="}
GOOD = '<img alt="Bars: two of them." src="data:,">'


def code(source: str, *, count: int | None = 1, tags: tuple[str, ...] = (), **output: Any) -> Any:
    """Return a code cell with one output, of data (``data=``), text (``text=``) or an error (``ename=``)."""
    cell = nbformat.v4.new_code_cell(source, execution_count=count)
    if tags:
        cell.metadata.tags = list(tags)
    if "data" in output:
        cell.outputs = [nbformat.v4.new_output("display_data", data=output["data"])]
    elif "text" in output:
        cell.outputs = [nbformat.v4.new_output("stream", text=output["text"])]
    elif "ename" in output:
        cell.outputs = [nbformat.v4.new_output("error", ename=output["ename"], evalue="", traceback=[])]
    return cell


def prose(text: str) -> Any:
    """Return a markdown cell."""
    return nbformat.v4.new_markdown_cell(text)


def problems(*cells: Any, folder: Path = Path("/nonexistent")) -> list[str]:
    """Return what is wrong with a notebook of ``cells``."""
    return problems_in(nbformat.v4.new_notebook(cells=list(cells)), folder=folder)


def folded(cell: Any) -> Any:
    """Return ``cell`` closed at first."""
    cell.metadata.jupyter = {"source_hidden": True}
    return cell


def test_a_lesson_that_keeps_the_rules_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "04_cgroups.py").touch()
    cells = [
        prose(
            "# A `title` here\n[next](04_cgroups.ipynb#Top) [web](https://example.org) [up](#A-title-here)\n![two bars](04_cgroups.py)"
        ),
        code("import os\nfrom labkit import lesson", count=1),
        code("print('50 % of ![](x)')\nx = 'a;b'  # not the end;", count=2, data={**PNG, "text/html": GOOD}),
        code("def mine(): ...", count=3, tags=("exercise",)),
        code("task.judge(mine)", count=4, tags=("judge",), data={"text/plain": "not yet: done. Now: nothing"}),
        folded(code("task.prove(x)", count=5, tags=("solution",), text="pass: the solution\n")),
        folded(code("guess = lesson.predict('?',\n  options=['a', 'b'],\n  answer='a')\nguess", count=6)),
        prose("```python\n[not](a-link) ![](x)\n```\nand `[nor](this)`"),
    ]
    assert problems(*cells, folder=tmp_path) == []


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([prose("words")], "has no code"),
        ([code("1", count=None)], "not run in order"),
        ([code("1", count=2)], "not run in order"),
        ([code("1", count=2), code("2", count=1)], "not run in order"),
        ([code("\n".join("x = 1" for _ in range(13)))], "13 lines of code; at most 12"),
        ([code("x;")], "trailing semicolon"),
        ([code("x;  # shown")], "trailing semicolon"),
        ([code("%matplotlib inline")], "magics"),
        ([code("!ls")], "magics"),
        ([code("get_ipython().system('ls')")], "magics"),
        ([code("x = (")], "it is no Python"),
        ([code("1"), code("import os", count=2)], "imports belong into the first code cell"),
        ([code("1"), code("def f():\n    import os", count=2)], "imports belong into the first code cell"),
        ([code("1", ename="ValueError")], "its output is an error (ValueError)"),
        ([code("1", data={"application/vnd.jupyter.widget-view+json": {}})], "a widget's random id"),
        ([code("1", data=PNG)], "a figure has no alternative text"),
        ([code("1", data={**PNG, "text/html": '<img src="x">'})], "has an empty alt"),
        ([code("1", data={"text/html": '<img alt=" " src="x">'})], "has an empty alt"),
        ([code("1", tags=("hide",))], "the tag 'hide' has no meaning here"),
        ([code("1"), prose("[x](no/such.md)")], "leads nowhere"),
        ([code("1"), prose("[x](#Nowhere)")], "names no heading"),
        ([code("1"), prose("![](https://example.org/x.png)")], "has no alternative text"),
        ([code("1"), prose('<img src="https://example.org/x.png">')], "has no alternative text"),
        ([code("1", tags=("exercise",))], "no cell tagged 'judge' after"),
        ([code("1", tags=("judge",), text="not yet: x")], "no cell tagged 'solution' after"),
        ([code("1", tags=("judge",), text="pass: x")], "must say 'not yet:'"),
        ([folded(code("1", tags=("solution",), text="hm"))], "must say 'pass:'"),
        ([code("1", tags=("solution",), text="pass: x")], "must be folded"),
        ([code("q = quiz('?', [])")], "must be folded"),
        ([folded(code("q = predict('?', answer='a')"))], "write answer=, right= and why= on a later line"),
        ([code("1"), nbformat.v4.new_raw_cell("x")], "only markdown and code cells"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_rule_is_broken(cells: list[Any], said: str) -> None:
    found = problems(*cells)
    assert any(said in problem for problem in found), found
    assert len(found) <= 2, found
