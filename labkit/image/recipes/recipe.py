"""The recipes: names, what each one is built on, and what is put beside its Containerfile before it is built.

See: ``images/oci``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.image.recipes.hostpython import copy_python, python_version
from labkit.image.recipes.wheel import write_wheel
from labkit.setup.parts import find_busybox

__all__ = ["KEY_LABEL", "RECIPES", "Recipe", "key_of", "prepare"]

#: The label that says from what an image was made; as long as it is the same, there is nothing to do.
KEY_LABEL = "labkit.recipe"
_FOLDERS = ("dev", "etc", "proc", "root", "run", "srv", "sys", "tmp", "usr/bin", "var/tmp")
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/srv:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image: ``base`` is another recipe's name or empty; ``facts`` changes when what is copied from this machine does."""

    name: str
    base: str
    fill: Callable[[Path, Path], None]
    facts: Callable[[], str]
    tags: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """The names that the image gets."""
        return (f"{self.name}:latest", *(f"{self.name}:{tag}" for tag in self.tags))


def prepare(recipe: Recipe, sources: Path, folder: Path) -> None:
    """Put the recipe's own files, from ``sources``, and this machine's into ``folder``, as a build's context.

    Modes are fixed: they count for the digest, and a checkout's depend on the user's umask. Raises: FeatureMissing.
    """
    for path in sorted((sources / recipe.name).iterdir()):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
            (folder / path.name).chmod(0o644)
    recipe.fill(folder, sources)


def key_of(recipe: Recipe, sources: Path, base_id: str) -> str:
    """Return what the image depends on as a short hash: the recipe's files, this machine's, and the image below."""
    found = hashlib.sha256(f"{base_id} {recipe.facts()}".encode())
    folders = [sources / recipe.name, *([sources / "coinbox"] if recipe.fill is _fill_app else [])]
    for path in sorted(
        path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"
    ):
        found.update(f"{path.relative_to(sources)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _fill_busybox(folder: Path, _: Path) -> None:
    busybox = find_busybox()
    if busybox is None:
        raise FeatureMissing(
            "There is no static busybox on this machine.",
            remedy="Run `labkit setup`, or install the package busybox-static.",
        )
    shutil.copyfile(busybox, folder / "busybox")
    root = folder / "rootfs"
    for name in _FOLDERS:
        (root / name).mkdir(mode=0o755, parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for path, text in (("etc/passwd", _PASSWD), ("etc/group", _GROUP)):
        (root / path).write_text(text)
        (root / path).chmod(0o644)


def _busybox_facts() -> str:
    busybox = find_busybox()
    return "" if busybox is None else hashlib.sha256(busybox.read_bytes()).hexdigest()


def _fill_python(folder: Path, _: Path) -> None:
    copy_python(folder / "rootfs")


def _python_facts() -> str:
    library = os.stat(os.__file__)
    return f"{sys.version} {os.__file__} {library.st_size} {library.st_mtime_ns}"


def _fill_web(folder: Path, sources: Path) -> None:
    """The recipe's own files are all there is."""


def _fill_app(folder: Path, sources: Path) -> None:
    wheels = folder / "wheels"
    wheels.mkdir(mode=0o755)
    for version in ("1.0", "2.0"):
        write_wheel(sources / "coinbox" / version / "coinbox", version, wheels).chmod(0o644)


RECIPES: tuple[Recipe, ...] = (
    Recipe("busybox", "", _fill_busybox, _busybox_facts),
    Recipe("python", "busybox", _fill_python, _python_facts, (python_version(),)),
    Recipe("web", "python", _fill_web, str),
    Recipe("legacy-app", "python", _fill_app, str),
    Recipe("modern-app", "python", _fill_app, str),
)
