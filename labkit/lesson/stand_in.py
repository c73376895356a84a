"""A lesson on a machine without user namespaces: cells that cannot run show what they gave where the notebook was built.

Nearly everything in a lesson needs a namespace. Where the machine refuses them altogether (a pod with a container engine's default
filter), each cell is still tried. If it meets the refusal, the cell does not fail: below it stand the rule, and the outputs that are
stored in the notebook, marked as a recording, with ``pass`` turned into ``not shown here``. A later cell that reads a name which
such a cell would have set (or the answer of a refused `needs`) is not run but treated the same. What it closes is closed.

`begin` reads the stored outputs before the first cell overwrites them, and changes how IPython runs cells from then on, in this
process. On a machine that has user namespaces nothing of this is ever loaded.

Leaves out: cells that the reader has written or changed; for them only the rule is said. Names inside functions count as names.
See: IPython.core.interactiveshell (ast_transformers); `labkit.lesson.needs`; docs/pod.md for what this looks like.
"""

from __future__ import annotations

import ast
import errno
import html
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.lesson.display import Text, note

__all__ = ["MARK", "Stage", "begin", "stored_outputs"]

#: The key in an output's metadata by which a recording is told from what has been run.
MARK = "labkit-recorded"
_NAME = "__labkit_stage__"
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)
_ENDINGS = ("close", "stop", "cleanup", "shutdown")


def begin(shell: Any, *, rule: str, notebook: Path) -> Stage:
    """Let ``shell`` run cells as this module describes; ``rule`` says what refuses, ``notebook`` has the stored outputs."""
    stage = Stage(shell.user_ns, rule=rule, stored=stored_outputs(notebook), built_on=_built_on(notebook))
    shell.user_ns[_NAME] = stage
    shell.events.register("pre_run_cell", stage.note_cell)
    shell.ast_transformers.append(stage)
    return stage


def stored_outputs(notebook: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the outputs of each code cell by its source; of a saved stand-in, what it had recorded. Empty for no notebook."""
    cells = _read(notebook).get("cells", [])
    found = {}
    for cell in cells:
        if cell.get("cell_type") == "code":
            outputs = cell.get("outputs", [])
            recorded = [output for output in outputs if output.get("metadata", {}).get(MARK) == "output"]
            is_stand_in = any(MARK in output.get("metadata", {}) for output in outputs)
            found[_joined(cell["source"]).strip()] = recorded if is_stand_in else outputs
    return found


class Stage:
    """How the cells of one lesson are run: an AST transformer, and the names that no cell could set."""

    def __init__(
        self, names: dict[str, Any], *, rule: str, stored: Mapping[str, list[dict[str, Any]]], built_on: str
    ) -> None:
        self.rule, self.built_on = rule.rstrip("."), built_on
        self.missing: set[str] = set()
        self._names, self._stored = names, stored
        self._source, self._sets = "", frozenset[str]()

    def note_cell(self, info: Any) -> None:
        """Remember the text of the cell that is about to run; IPython calls this."""
        self._source = str(info.raw_cell).strip()

    def visit(self, tree: ast.Module) -> ast.Module:
        """Return what shall be run for a cell: its clean-up if a name is missing, else the cell itself, watched."""
        if not tree.body:
            return tree
        loaded, self._sets = _names_in(tree)
        refused = set() if "recorded_or" in loaded else self._refused_needs()
        if loaded & (self.missing | refused):
            return self._instead(tree)
        body = tree.body
        if isinstance(body[-1], ast.Expr):
            # Within a block IPython would not show the value of the last line.
            shown = ast.Call(_attribute("show"), [body[-1].value], [])
            body = [*body[:-1], ast.copy_location(ast.Expr(shown), body[-1])]
        attempt = ast.With([ast.withitem(ast.Call(_attribute("attempt"), [], []))], body)
        return ast.fix_missing_locations(ast.Module([ast.copy_location(attempt, tree.body[0])], []))

    @staticmethod
    def show(value: object) -> None:
        """Show the value of a cell's last line as IPython does."""
        import sys

        sys.displayhook(value)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run a cell; let the recording stand in for it if the machine refuses, and let every other error through."""
        sets = self._sets
        try:
            yield
        except (LabkitError, OSError, subprocess.CalledProcessError) as error:
            if isinstance(error, OSError) and error.errno not in _REFUSALS:
                raise
            self.missing |= sets
            self.stand_in(str(error))
        else:
            self.missing -= sets

    def stand_in(self, why: str = "") -> None:
        """Show the rule, and what the running cell gave where the notebook was built."""
        from IPython.display import display

        outputs = self._stored.get(self._source)
        said = "It shows nothing." if outputs == [] else "Nothing is recorded of a cell of your own."
        if outputs:
            said = f"Recording of what it gave where the notebook was built ({self.built_on}):"
        text = f"Not run on this machine: {why or self.rule}. {said}"
        display(Text(text, note("not yet", html.escape(text))), metadata={MARK: "note"})  # type: ignore[no-untyped-call]
        for data in map(_as_data, outputs or ()):
            display(data, raw=True, metadata={MARK: "output"})  # type: ignore[no-untyped-call]

    def end(self, *closers: Callable[[], object]) -> None:
        """Call what a skipped cell would have closed; what was never made cannot be closed."""
        for close in closers:
            with suppress(LabkitError, OSError, NameError, AttributeError):
                close()

    def _refused_needs(self) -> set[str]:
        from labkit.lesson.needs import Need

        return {name for name, value in list(self._names.items()) if isinstance(value, Need) and not value}

    def _instead(self, tree: ast.Module) -> ast.Module:
        """Return the stand-in, and of the cell's lines those that close something."""
        self.missing |= self._sets
        calls = [line.value for line in tree.body if isinstance(line, ast.Expr) and _ends(line.value)]
        closers: list[ast.expr] = [ast.Lambda(ast.arguments([], [], None, [], [], None, []), call) for call in calls]
        ended = ast.Expr(ast.Call(_attribute("end"), closers, []))
        shown = ast.Expr(ast.Call(_attribute("stand_in"), [], []))
        lines: list[ast.stmt] = [ast.copy_location(line, tree.body[0]) for line in (ended, shown)]
        return ast.fix_missing_locations(ast.Module(lines, []))


def _attribute(name: str) -> ast.Attribute:
    return ast.Attribute(ast.Name(_NAME, ast.Load()), name, ast.Load())


def _ends(value: ast.expr) -> bool:
    """Say whether the expression calls a method that ends something."""
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _ENDINGS


def _names_in(tree: ast.AST) -> tuple[set[str], frozenset[str]]:
    """Return the names that a cell reads and those that it sets; what it sets first and reads later is not read."""
    loaded: set[str] = set()
    stored: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            loaded.add(node.attr) if node.attr == "recorded_or" else None
        elif isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else stored).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            stored.add(node.name)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            loaded.add(node.target.id)
    return loaded - _set_first(tree), frozenset(stored)


def _set_first(tree: ast.AST) -> set[str]:
    """Return names that a plain assignment, an import or a definition sets before any line reads them."""
    seen: set[str] = set()
    first: set[str] = set()
    for line in getattr(tree, "body", []):
        reads = {node.id for node in ast.walk(line) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        sets = {node.id for node in ast.walk(line) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        sets |= {line.name} if isinstance(line, (ast.FunctionDef, ast.ClassDef)) else set()
        own = sets if isinstance(line, (ast.With, ast.FunctionDef, ast.ClassDef, ast.For)) else sets - reads
        first |= set() if isinstance(line, ast.AugAssign) else own - seen
        seen |= reads
    return first


def _as_data(output: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored output as data to display; no claim of it has been checked here."""
    kind = output.get("output_type")
    if kind == "stream":
        text = _joined(output["text"]).rstrip("\n")
        return {"text/plain": re.sub(r"^pass: ", "not shown here: ", text, flags=re.M)}
    if kind == "error":
        return {"text/plain": f"{output['ename']}: {output['evalue']}"}
    data = {mime: _joined(value) if mime.startswith("text/") else value for mime, value in output["data"].items()}
    if MARK in output.get("metadata", {}):
        return data
    data["text/plain"] = re.sub(r"^pass: ", "not shown here: ", data.get("text/plain", ""), flags=re.M)
    return data


def _built_on(notebook: Path) -> str:
    built: dict[str, str] = _read(notebook).get("metadata", {}).get("labkit", {})
    return ", ".join(built.values()) or "the authors' machine"


def _read(notebook: Path) -> dict[str, Any]:
    try:
        found = json.loads(notebook.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _joined(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
