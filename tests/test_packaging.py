"""The front of the repository: what is installed, what the commands are, and that the copies of one list agree."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from labkit.setup import parts
from tests.support import PROJECT, requires

PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
RUNTIME: list[str] = PYPROJECT["project"]["dependencies"]
DEV: list[str] = PYPROJECT["project"]["optional-dependencies"]["dev"]
CONDA: list[Any] = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
TARGETS = ("help", "lab", "test", "setup", "notebooks", "pictures", "check", "clean")
#: Modules that only authors run; they may import what `make notebooks` installs.
AUTHORING = ("lesson/build.py",)


def test_environment_yml_names_the_same_packages_in_the_same_versions() -> None:
    (through_pip,) = (entry["pip"] for entry in CONDA if isinstance(entry, dict))
    assert sorted(through_pip) == sorted(RUNTIME)
    assert {entry for entry in CONDA if isinstance(entry, str)} == {"python=3.12", "pip"}


def test_the_python_of_binder_is_one_that_labkit_supports() -> None:
    version = next(entry for entry in CONDA if isinstance(entry, str) and entry.startswith("python=")).partition("=")[2]
    assert Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier.contains(version)


def test_the_lists_are_sorted_and_every_entry_has_a_lowest_version() -> None:
    for listed in (RUNTIME, DEV):
        names = [Requirement(line).name.lower().replace("_", "-") for line in listed]
        assert names == sorted(names)
        assert all(">=" in line for line in listed)


def test_what_is_installed_satisfies_what_is_asked() -> None:
    for line in (*RUNTIME, *DEV):
        wanted = Requirement(line)
        assert wanted.specifier.contains(importlib.metadata.version(wanted.name)), line


def _closure(names: Iterable[str]) -> set[str]:
    """Return ``names`` and everything that installing them brings, as far as it is installed here."""
    found: set[str] = set()
    queue = [canonicalize_name(Requirement(name).name) for name in names]
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        wanted = (Requirement(line) for line in required)
        queue += [
            canonicalize_name(each.name)
            for each in wanted
            if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    return found


def _imports(path: Path) -> set[str]:
    """Return the top names of what a module imports, in functions, too."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {
        name.partition(".")[0]
        for name in plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    }


def test_every_import_of_labkit_is_installed_by_its_dependencies() -> None:
    homes = importlib.metadata.packages_distributions()
    brought, brought_for_authors = _closure(RUNTIME), _closure([*RUNTIME, *DEV])
    for path in (PROJECT / "labkit").rglob("*.py"):
        allowed = brought_for_authors if path.as_posix().endswith(AUTHORING) else brought
        # _typeshed is known to type checkers only, and imported for them only.
        for name in _imports(path) - set(sys.stdlib_module_names) - {"labkit", "_typeshed"}:
            homes_of_name = {canonicalize_name(home) for home in homes.get(name, [])}
            assert homes_of_name & allowed, f"{path.relative_to(PROJECT)} imports {name}, which nothing installs"


def test_the_command_labkit_is_installed_and_runs() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="labkit")
    assert callable(entry.load())
    script = Path(sys.executable).with_name("labkit")
    result = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "setup" in result.stdout


def test_users_of_the_package_get_its_types() -> None:
    assert (PROJECT / "labkit/py.typed").is_file()


def test_binder_reads_the_environment_of_the_root() -> None:
    link = PROJECT / "binder/environment.yml"
    assert link.is_symlink()
    assert link.resolve() == PROJECT / "environment.yml"


def test_binder_scripts_can_be_run_and_start_becomes_the_server(tmp_path: Path) -> None:
    assert os.access(PROJECT / "binder/postBuild", os.X_OK)
    start = PROJECT / "binder/start"
    result = subprocess.run(
        [start, "sh", "-c", "echo $$ $1 $PATH", "sh", "a b"], capture_output=True, text=True, check=True
    )
    _pid, first, second, path = result.stdout.split(maxsplit=3)
    assert (first, second) == ("a", "b")
    assert "/usr/sbin" in path.split(":")
    assert start.read_text().rstrip().splitlines()[-1] == 'exec "$@"'


def test_binder_installs_the_parts_that_set_up_installs() -> None:
    wanted = {part.packages["apt-get"] for part in parts.PARTS if not part.for_tests} - {"util-linux"}
    assert set((PROJECT / "binder/apt.txt").read_text().split()) == wanted


@requires("program:make")
def test_make_alone_lists_every_command_with_a_line_of_help() -> None:
    listed = subprocess.run(["make", "-C", PROJECT], capture_output=True, text=True, check=True).stdout
    assert tuple(re.findall(r"^  make (\w+) +\S.{10,}$", listed, re.MULTILINE)) == TARGETS


@requires("program:make")
def test_make_looks_for_programs_where_set_up_does() -> None:
    shown = subprocess.run(
        ["make", "-s", "-C", PROJECT, "--no-print-directory", "--eval", "show: ; @printf %s \"$$PATH\"", "show"],
        capture_output=True, text=True, check=True, env={**os.environ, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert list(dict.fromkeys(shown.stdout.split(":"))) == parts.search_path("/usr/bin:/bin").split(":")


def test_ci_runs_the_command_of_the_readme() -> None:
    script = (PROJECT / ".ci/run").read_text()
    assert os.access(PROJECT / ".ci/run", os.X_OK)
    assert re.search(r"^(exec )?make test$", script, re.MULTILINE)
    readme = (PROJECT / "README.md").read_text()
    for command in ("make test", "make lab"):
        assert re.search(rf"^(\$ )?{command}\b", readme, re.MULTILINE), command


@pytest.mark.parametrize("script", ["labkit/setup/bootstrap.sh", "tests/as_user.sh"])
def test_scripts_for_sh_are_understood_by_sh(script: str) -> None:
    shell = shutil.which("dash") or "sh"
    subprocess.run([shell, "-n", PROJECT / script], check=True)


@requires("program:git")
def test_nothing_that_is_made_or_binary_is_committed() -> None:
    listed = subprocess.run(["git", "-C", PROJECT, "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no clone")
    made = re.compile(r"(^|/)(\.venv|__pycache__|\.ipynb_checkpoints|\.mypy_cache)/|\.(deb|so|img|qcow2|whl)$")
    assert not [name for name in listed.stdout.splitlines() if made.search(name)]
