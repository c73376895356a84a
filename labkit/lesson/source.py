"""Show labkit's own code of the mechanism at hand: the function or class as it stands in the file, coloured.

What a lesson explains is what runs: the text comes from the imported module, so it cannot differ from what the cells above called.
The notebook stores it, and nbval compares it: a changed function makes the notebook's build stale, and the test says so.

Leaves out: editing; code of the standard library (read it where it is documented).
See: inspect (Python library).
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import labkit
from labkit.errors import InvalidSpec
from labkit.lesson.display import Text, show_text

__all__ = ["read_source", "source"]

#: Token kind -> the colour that JupyterLab's theme gives it, with one for viewers without such a theme (4.5 to 1 on both papers
#: is impossible for a fixed colour, so the fallback block brings its own light paper).
_COLOURS = {
    "Comment": "var(--jp-mirror-editor-comment-color,#5a6b6b)",
    "Literal.String": "var(--jp-mirror-editor-string-color,#a31515)",
    "Literal.Number": "var(--jp-mirror-editor-number-color,#08652a)",
    "Keyword": "var(--jp-mirror-editor-keyword-color,#0a6b00)",
    "Name.Function": "var(--jp-mirror-editor-def-color,#0000cc)",
    "Name.Class": "var(--jp-mirror-editor-def-color,#0000cc)",
    "Name.Decorator": "var(--jp-mirror-editor-meta-color,#8a3fb0)",
    "Operator.Word": "var(--jp-mirror-editor-keyword-color,#0a6b00)",
}
_BLOCK = (
    "background:var(--jp-cell-editor-background,#f5f5f5);color:var(--jp-content-font-color1,#1a1a1a);"
    "padding:8px;margin:4px 0;overflow-x:auto;line-height:1.35"
)


def source(thing: Callable[..., Any] | type | ModuleType, *, without_docstring: bool = False) -> None:
    """Show the source of ``thing``, with the file and line where it stands; ``without_docstring`` saves room.

    Raises: InvalidSpec if ``thing`` is not a function, class or module of labkit's.
    """
    place, text = read_source(thing, without_docstring=without_docstring)
    caption = f'<div style="font-size:0.9em">From <code>{html.escape(place)}</code></div>'
    body = f'<pre tabindex="0" role="region" aria-label="source code of {html.escape(place)}" style="{_BLOCK}">'
    show_text(Text(plain=f"# {place}\n{text}", html=f"{caption}{body}{_coloured(text)}</pre>"))


def read_source(thing: Callable[..., Any] | type | ModuleType, *, without_docstring: bool = False) -> tuple[str, str]:
    """Return (``"labkit/isolation/mounts.py:57"``, the text). Raises: InvalidSpec if it is none of labkit's."""
    whole = inspect.unwrap(thing) if callable(thing) else thing
    try:
        file = Path(inspect.getsourcefile(whole) or "")
        lines, first = inspect.getsourcelines(whole)
    except (OSError, TypeError) as error:
        raise InvalidSpec(f"{thing!r} has no Python source to show: name a function or class of labkit.") from error
    package = Path(labkit.__file__).parent
    if not file.is_relative_to(package):
        raise InvalidSpec(f"{thing!r} is not labkit's own: source() shows only the code of this course.")
    text = inspect.cleandoc("\n" + "".join(lines)) + "\n"
    if without_docstring:
        text = _drop_docstring(text)
    return f"{file.relative_to(package.parent)}:{max(first, 1)}", text


def _drop_docstring(text: str) -> str:
    """Return ``text`` without its outermost docstring, which a lesson's prose has just said."""
    import ast

    node = ast.parse(text).body[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or ast.get_docstring(node) is None:
        return text
    docstring = node.body[0]
    lines = text.splitlines(keepends=True)
    return (
        "".join(lines[: docstring.lineno - 1] + lines[docstring.end_lineno or docstring.lineno :]).rstrip("\n") + "\n"
    )


def _coloured(text: str) -> str:
    """Return ``text`` as HTML with a ``<span>`` around each token that has a colour."""
    from pygments.lexers.python import PythonLexer  # type: ignore[import-untyped]

    pieces = []
    for kind, value in PythonLexer(stripnl=False).get_tokens(text):
        name = str(kind).removeprefix("Token.")
        colour = next((code for prefix, code in _COLOURS.items() if name.startswith(prefix)), None)
        escaped = html.escape(value, quote=False)
        pieces.append(f'<span style="color:{colour}">{escaped}</span>' if colour else escaped)
    return "".join(pieces)
