"""Imports go downwards only, in the order that the design draws; the order is read from the code, function bodies too."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import PROJECT

#: From the lowest floor to the highest; rooms on one floor do not import each other.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("units",),
    ("linux", "setup"),
    ("isolation",),
    ("container",),
    ("image", "vm"),
    ("measure",),
    ("compose", "doctor", "engine", "sandbox"),
    ("charts",),
    ("widgets",),
    ("lesson",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
#: What the launcher, a process of ``python -I -S``, imports; found by following its imports, here only the entrance.
LAUNCHER = "labkit.container.resident"


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement: who imports what, where, and whether it runs when the module is loaded."""

    importer: str
    imported: str
    line: int
    at_load: bool


def module_name(path: Path) -> str:
    """Return the dotted name of the module in ``path``."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((PROJECT / "labkit").rglob("*.py"))}


def imports_of(name: str) -> Iterator[Import]:
    """Yield every import of the module, those in functions and under TYPE_CHECKING included."""
    tree = ast.parse(MODULES[name].read_text())
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    later = {node for function in ast.walk(tree) if _runs_later(function) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(name, alias.name, node.lineno, node not in later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1]]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(name, inner if inner in MODULES else source, node.lineno, node not in later)
        elif isinstance(node, ast.Call) and _is_import_call(node):
            target = node.args[0]
            if isinstance(target, ast.Constant):
                yield Import(name, str(target.value), node.lineno, node not in later)


def _runs_later(node: ast.AST) -> bool:
    type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    return type_checking or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def _is_import_call(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("import_module", "__import__") and bool(node.args)


def room_of(name: str) -> str:
    """Return the room of a module: ``labkit.linux.fds`` lies in ``linux``; the package itself in none."""
    return name.split(".")[1] if "." in name else ""


ALL_IMPORTS = [found for name in MODULES for found in imports_of(name)]


def test_every_room_has_a_floor() -> None:
    unknown = {room_of(name) for name in MODULES} - set(FLOOR_OF) - {""}
    assert not unknown, f"DESIGN and this test do not say where these lie: {sorted(unknown)}"


def test_imports_go_downwards_only() -> None:
    wrong = [
        f"{MODULES[found.importer].relative_to(PROJECT)}:{found.line}: {room_of(found.importer)} imports {found.imported}"
        for found in ALL_IMPORTS
        if found.imported.startswith("labkit.") and not _is_allowed(room_of(found.importer), room_of(found.imported))
    ]
    assert not wrong, "\n".join(wrong)


def _is_allowed(importer: str, imported: str) -> bool:
    if importer == "" or importer == imported:
        return True
    return FLOOR_OF.get(imported, -1) < FLOOR_OF.get(importer, -1)


def test_ctypes_lives_in_one_room() -> None:
    elsewhere = [
        f"{MODULES[found.importer].relative_to(PROJECT)}:{found.line}"
        for found in ALL_IMPORTS
        if found.imported.split(".")[0] in ("ctypes", "_ctypes", "cffi") and room_of(found.importer) != "linux"
    ]
    assert not elsewhere, f"ctypes outside labkit/linux: {elsewhere}"


def test_the_launcher_needs_nothing_but_the_standard_library() -> None:
    foreign = [
        f"{found.importer} line {found.line} imports {found.imported}"
        for name in loaded_by(LAUNCHER)
        for found in imports_of(name)
        if found.at_load and not _is_standard(found.imported) and not found.imported.startswith("labkit")
    ]
    assert not foreign, "\n".join(foreign)


@pytest.mark.parametrize("room", ["linux", "isolation", "setup"])
def test_these_rooms_load_nothing_but_the_standard_library(room: str) -> None:
    foreign = [
        f"{found.importer} line {found.line} imports {found.imported}"
        for found in ALL_IMPORTS
        if room_of(found.importer) == room
        and found.at_load
        and not _is_standard(found.imported)
        and not found.imported.startswith("labkit")
    ]
    assert not foreign, "\n".join(foreign)


def loaded_by(entrance: str) -> set[str]:
    """Return the modules of labkit that importing ``entrance`` loads, itself and the packages above included."""
    found: set[str] = set()
    waiting = [entrance]
    while waiting:
        name = waiting.pop()
        if name in found or name not in MODULES:
            continue
        found.add(name)
        waiting += [other.imported for other in imports_of(name) if other.at_load]
        waiting.append(name.rpartition(".")[0])
    return found


def _is_standard(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        name: {found.imported for found in imports_of(name) if found.at_load and found.imported in MODULES}
        for name in MODULES
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_the_rule_finds_what_it_is_for() -> None:
    assert not _is_allowed("linux", "isolation")
    assert not _is_allowed("container", "image")
    assert not _is_allowed("setup", "linux")
    assert _is_allowed("measure", "container")
    assert _is_allowed("cli", "lesson")
    assert "labkit.linux.syscalls" in loaded_by(LAUNCHER)
