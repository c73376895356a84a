"""The house style, as far as a program can check it: each rule is a function that names the lines that break it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.test_layers import MODULES

MOST_FUNCTION_LINES = 50
MOST_MODULE_LINES = 400
#: Rooms whose modules explain a mechanism of Linux, of a specification or of a tool: they say where to read more.
ROOMS_WITH_SOURCES = ("container", "engine", "image", "isolation", "linux", "sandbox", "vm")
#: Where printing is the job: the command line, the set-up with its progress, what a lesson says to the student.
MAY_PRINT = ("cli", "commands", "lesson", "setup")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text())


def functions(tree: ast.Module) -> Iterator[Function]:
    """Yield every function of a module, at any depth."""
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def where(path: Path, node: ast.AST) -> str:
    """Return ``file:line``, as editors understand it."""
    return f"{path.relative_to(PROJECT)}:{getattr(node, 'lineno', 1)}"


def module_without_docstring(path: Path) -> Iterator[str]:
    """A module opens with a docstring."""
    if not ast.get_docstring(tree_of(path)):
        yield f"{where(path, tree_of(path))}: no docstring"


def mechanism_without_sources(path: Path) -> Iterator[str]:
    """A module about a mechanism says in its docstring where to read more."""
    room = path.relative_to(PROJECT / "labkit").parts[0]
    docstring = ast.get_docstring(tree_of(path)) or ""
    if room in ROOMS_WITH_SOURCES and not path.name.startswith("__") and "See:" not in docstring:
        yield f"{where(path, tree_of(path))}: the docstring has no 'See:'"


def long_function(path: Path) -> Iterator[str]:
    """No function passes 50 lines, docstring included."""
    for function in functions(tree_of(path)):
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > MOST_FUNCTION_LINES:
            yield f"{where(path, function)}: {function.name} has {lines} lines"


def long_module(path: Path) -> Iterator[str]:
    """No module passes 400 lines."""
    lines = len(path.read_text().splitlines())
    if lines > MOST_MODULE_LINES:
        yield f"{path.relative_to(PROJECT)}: {lines} lines"


def public_without_docstring(path: Path) -> Iterator[str]:
    """What has no underscore has a docstring: classes, functions, methods; not a method that a base class describes."""
    tree = tree_of(path)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for node in [*tree.body, *(inner for owner in classes for inner in owner.body)]:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node) and not _is_overload_or_override(node):
            yield f"{where(path, node)}: {node.name} has no docstring"


def _is_overload_or_override(node: Function | ast.ClassDef) -> bool:
    names = {getattr(decorator, "attr", getattr(decorator, "id", "")) for decorator in node.decorator_list}
    return bool(names & {"overload", "override", "setter"})


def no_list_of_public_names(path: Path) -> Iterator[str]:
    """A module lists its public names, and each of them exists; ``__main__`` is run, not imported."""
    tree = tree_of(path)
    listed = names_listed(tree)
    if listed is None:
        if path.name != "__main__.py" and len(tree.body) > 1:  # more than a docstring
            yield f"{where(path, tree)}: no __all__"
        return
    missing = [name for name in listed if name not in names_defined(tree) and not _is_lazy(tree)]
    if missing:
        yield f"{where(path, tree)}: __all__ names what is not there: {missing}"
    if len(listed) != len(set(listed)):
        yield f"{where(path, tree)}: __all__ names something twice"


def names_listed(tree: ast.Module) -> list[str] | None:
    """Return what ``__all__`` lists; None without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def names_defined(tree: ast.Module) -> set[str]:
    """Return the names that running the module defines, imports included."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def _is_lazy(tree: ast.Module) -> bool:
    return any(function.name == "__getattr__" for function in tree.body if isinstance(function, ast.FunctionDef))


def private_name_of_another_module(path: Path) -> Iterator[str]:
    """Nobody imports an underscored name from another module."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("labkit"):
            for alias in node.names:
                if alias.name.startswith("_") and not alias.name.startswith("__"):
                    yield f"{where(path, node)}: {alias.name} is private to {node.module}"


def open_keywords(path: Path) -> Iterator[str]:
    """No ``**kwargs``: it hides what can be given. ``**_`` ignores what a protocol passes; inner functions are nobody's API."""
    tree = tree_of(path)
    inner = {node for outer in functions(tree) for node in ast.walk(outer) if node is not outer}
    for function in functions(tree):
        kwarg = function.args.kwarg
        if kwarg is not None and function not in inner and not kwarg.arg.startswith("_"):
            yield f"{where(path, function)}: {function.name} takes **{kwarg.arg}"


def positional_flag(path: Path) -> Iterator[str]:
    """A flag is given by its name: no positional parameter is a bool."""
    for function in functions(tree_of(path)):
        if function.name.startswith("_") or _is_overload_or_override(function):
            continue
        positional = [*function.args.posonlyargs, *function.args.args]
        for parameter in positional:
            if parameter.annotation is not None and ast.unparse(parameter.annotation) == "bool":
                yield f"{where(path, function)}: the flag {parameter.arg} of {function.name} is positional"


def broad_except(path: Path) -> Iterator[str]:
    """An error is caught by its type; a handler may be broad only if it ends by raising what it caught."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in node.body)
            if caught in ("", "Exception", "BaseException") and not reraises:
                yield f"{where(path, node)}: except {caught or 'everything'}"


def assertion(path: Path) -> Iterator[str]:
    """``assert`` is for tests: ``python -O`` takes it out."""
    yield from (f"{where(path, node)}: assert" for node in ast.walk(tree_of(path)) if isinstance(node, ast.Assert))


def printing(path: Path) -> Iterator[str]:
    """The library never prints; a demonstration at the end (``if __name__ == "__main__"`` and what it calls) does."""
    tree = tree_of(path)
    room = path.relative_to(PROJECT / "labkit").with_suffix("").parts[0]
    if room in MAY_PRINT or path.name == "__main__.py":
        return
    allowed = set(_demonstration(tree))
    for node in ast.walk(tree):
        is_print = isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        if is_print and node not in allowed:
            yield f"{where(path, node)}: print"


def _demonstration(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what belongs to the demonstration of a module: the block at its end and the functions it calls, and so on."""
    known = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    waiting: list[ast.AST] = [
        node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    ]
    while waiting:
        for node in ast.walk(waiting.pop()):
            yield node
            if isinstance(node, ast.Name) and node.id in known:
                waiting.append(known.pop(node.id))


def result_without_slots(path: Path) -> Iterator[str]:
    """A frozen dataclass has slots."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                words = ast.unparse(decorator)
                if words.startswith(("dataclass(frozen", "dataclasses.dataclass(frozen")) and "slots=True" not in words:
                    yield f"{where(path, node)}: {node.name} is frozen but has no slots"


RULES: tuple[Callable[[Path], Iterator[str]], ...] = (
    module_without_docstring,
    mechanism_without_sources,
    long_function,
    long_module,
    public_without_docstring,
    no_list_of_public_names,
    private_name_of_another_module,
    open_keywords,
    positional_flag,
    broad_except,
    assertion,
    printing,
    result_without_slots,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_breaks_the_rule(rule: Callable[[Path], Iterator[str]]) -> None:
    broken = [line for path in MODULES.values() for line in rule(path)]
    assert not broken, f"{rule.__doc__}\n" + "\n".join(broken)


def test_a_name_that_another_module_uses_is_a_public_one() -> None:
    listed = {name: names_listed(tree_of(path)) for name, path in MODULES.items()}
    broken = []
    for path in MODULES.values():
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ImportFrom) or node.level or node.module not in MODULES:
                continue
            known = listed[node.module] or []
            broken += [
                f"{where(path, node)}: {alias.name} is not in {node.module}.__all__"
                for alias in node.names
                if alias.name not in known and f"{node.module}.{alias.name}" not in MODULES
            ]
    assert not broken, "\n".join(broken)


BAD = """
from labkit.linux.fds import _secret

def f(flag: bool, **kwargs):
    assert flag
    try:
        print(1)
    except Exception:
        pass
"""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_can_be_broken(
    rule: Callable[[Path], Iterator[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tests.test_style.PROJECT", tmp_path)
    path = tmp_path / "labkit" / "linux" / "bad.py"
    path.parent.mkdir(parents=True)
    text = BAD
    if rule is long_function:
        text = "def f():\n" + "    x = 1\n" * 60
    elif rule is long_module:
        text = "x = 1\n" * 500
    elif rule is result_without_slots:
        text = "@dataclass(frozen=True)\nclass A: ...\n"
    path.write_text(text)
    assert list(rule(path))
