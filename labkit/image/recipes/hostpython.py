"""The machine's own Python as files for an image: interpreter, standard library, and the shared libraries that they need.

A Python finds its library by where its program lies (``bin/python3`` and ``lib/python3.X`` side by side), so it can be moved as a
whole: into ``/usr/local``. Which shared libraries a program needs is what the loader says (``ld.so --list``); they all go into one folder
that every loader of that C library searches, beside the C library itself.

Modules are compiled once, with the check of the source's time taken out (PEP 552): the times of files in an image are not those of here.

Leaves out: tests, IDLE, Tk, documentation, headers, pip, and all installed packages.
See: ld.so(8), PEP 552, `site` in Python's manual.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.image.recipes.elf import loader_of

__all__ = ["PREFIX", "copy_python", "libraries_of", "python_version"]

PREFIX = Path("usr/local")
_LEFT_OUT = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter", "turtledemo",
}  # fmt: skip
_LEFT_OUT_FILES = (
    "_tkinter.",
    "_testcapi.",
    "_testinternalcapi.",
    "_ctypes_test.",
    "_testbuffer.",
    "_testimportmultiple.",
)
_COMPILE = "import compileall, py_compile, sys; sys.exit(not compileall.compile_dir(sys.argv[1], stripdir=sys.argv[1], prependdir=sys.argv[2], quiet=2, workers=1, force=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH))"


def python_version() -> str:
    """Return the version of the Python that is copied: ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def copy_python(root: Path) -> None:
    """Put the running Python (not its virtual environment) below ``root``, an empty folder that will be an image's ``/``.

    Raises: FeatureMissing if there is no interpreter of its own to copy, or a library is not found.
    """
    program = Path(sys.base_prefix, "bin", f"python{python_version()}").resolve()
    if not program.is_file():
        raise FeatureMissing(
            f"{program} is not there: this Python cannot be copied.",
            remedy="Run labkit with the distribution's Python.",
        )
    library = Path("lib") / f"python{python_version()}"
    target = root / PREFIX / library
    _copy_library(Path(os.__file__).resolve().parent, target)
    interpreter = root / PREFIX / "bin" / f"python{python_version()}"
    _copy_file(program, interpreter, mode=0o755)
    for name in ("python3", "python"):
        interpreter.with_name(name).symlink_to(interpreter.name)
    _copy_shared(program, root, [program, *target.rglob("*.so")])
    _compile(target, f"/{PREFIX / library}")


def _copy_library(source: Path, target: Path) -> None:
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("config-"))
        here = target / Path(folder).relative_to(source)
        here.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in sorted(files):
            path = Path(folder, name)
            if not name.endswith((".a", ".pyc")) and not name.startswith(_LEFT_OUT_FILES) and path.is_file():
                _copy_file(path, here / name, mode=0o644)


def _copy_file(source: Path, target: Path, *, mode: int) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _copy_shared(program: Path, root: Path, files: Iterable[Path]) -> None:
    """Copy the loader to the place that the program names, and all libraries beside the C library."""
    loader = loader_of(program)
    if loader is None:
        return  # a static Python needs none
    needed = sorted(libraries_of(loader, files))
    folder = next(
        (path.parent for path in needed if path.name.startswith(("libc.so", "libc.musl", "ld-musl"))), Path("/lib")
    )
    for path in needed:
        _copy_file(path, root / folder.relative_to("/") / path.name, mode=0o755)
    _copy_file(loader, root / loader.relative_to("/"), mode=0o755)


def libraries_of(loader: Path, files: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that ``files`` need, and those need, as the loader finds them.

    Raises: FeatureMissing naming one that is not found.
    """
    found: set[Path] = set()
    for file in sorted(files):
        done = subprocess.run(
            [loader, "--list", file], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
        )
        for line in done.stdout.splitlines():
            name, arrow, rest = line.strip().partition(" => ")
            if arrow and rest.startswith("not found"):
                raise FeatureMissing(
                    f"{file.name} needs {name}, which is not found.", remedy="Install the package that has it."
                )
            if arrow and rest.startswith("/"):
                found.add(Path(rest.split(" (")[0]))
    return {path for path in found if path.name != loader.name}


def _compile(library: Path, seen_as: str) -> None:
    # A process of its own each time: what else was imported would show in the compiled files.
    for folder in _folders(library):
        command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _COMPILE, str(folder), seen_as]
        subprocess.run(
            command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PYTHONHASHSEED": "0"}
        )


def _folders(library: Path) -> Iterator[Path]:
    yield library
