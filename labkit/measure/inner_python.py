"""Python programs of labkit's own that run inside namespaces: the probes and the attackers.

They start as ``python -I -S`` with the request as JSON, print an answer, and wait for the end of their input, so that whoever started
them can look from outside while they are there. A process in a user namespace is another user and may not enter every
folder: where labkit or Python itself lies in one that is closed (such as /root), a copy or the system's Python is taken.

See: user_namespaces(7), path_resolution(7).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.errors import FeatureMissing
from labkit.measure.scratch import scratch_folder

__all__ = ["answer_of", "inner_command", "is_open_to_all", "open_package", "serve", "tell"]

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from labkit.measure.{} import main; main(sys.argv[2])"
_SYSTEM_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
_LEAST_VERSION = (3, 11)
_PACKAGE = Path(__file__).resolve().parents[1]


def inner_command(module: str, request: dict[str, Any], *, package_parent: str | Path) -> list[str]:
    """Return the command that runs ``labkit.measure.MODULE`` with ``request``. Raises: FeatureMissing."""
    return [interpreter(), "-I", "-S", "-c", _BOOT.format(module), str(package_parent), json.dumps(request)]


@functools.cache
def interpreter() -> str:
    """Return a Python that every user may run: this one, or the system's. Raises: FeatureMissing."""
    own = os.path.realpath(sys.executable)
    if is_open_to_all(Path(own)) and is_open_to_all(Path(os.__file__)):
        return own
    for path in _SYSTEM_PYTHONS:
        if os.path.exists(path) and is_open_to_all(Path(os.path.realpath(path))) and _is_new_enough(path):
            return path
    raise FeatureMissing(
        f"The Python {own} lies in a folder that no other user may enter, so nothing in a user namespace can run it.",
        remedy=f"Install Python 3.11 or newer as /usr/bin/python3, or open the folder (chmod o+x {Path(own).parent}).",
    )


def _is_new_enough(path: str) -> bool:
    code = f"import sys; sys.exit(sys.version_info < {_LEAST_VERSION})"
    return subprocess.run([path, "-I", "-S", "-c", code], check=False, stdin=subprocess.DEVNULL).returncode == 0


def is_open_to_all(path: Path) -> bool:
    """Tell whether any user may read the file or folder ``path``: each folder above it must be open, too."""
    modes = [os.stat(part).st_mode for part in (path, *path.parents)]
    return bool(modes[0] & stat.S_IROTH) and all(mode & stat.S_IXOTH for mode in modes[1:])


@contextmanager
def open_package() -> Iterator[Path]:
    """Give a folder with the package ``labkit`` in it that any user may read: the real one, or a copy of what is needed."""
    if is_open_to_all(_PACKAGE / "__init__.py"):
        yield _PACKAGE.parent
        return
    with scratch_folder() as folder:
        skip = shutil.ignore_patterns("__pycache__", "charts", "widgets", "lesson", "setup", "doctor", "commands")
        shutil.copytree(_PACKAGE, folder / "labkit", ignore=skip)
        for path in (folder / "labkit").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield folder


def answer_of(line: bytes) -> dict[str, Any] | None:
    """Return the answer in a line that the program printed; None if it printed none."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def serve(answer: dict[str, Any]) -> None:
    """Inside: print the answer and wait until whoever asked closes our input."""
    tell(answer)
    sys.stdin.buffer.read()


def tell(answer: dict[str, Any]) -> None:
    """Inside: hand the answer to whoever asked, as one line."""
    os.write(1, json.dumps(answer).encode() + b"\n")
