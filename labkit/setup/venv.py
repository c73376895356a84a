"""The virtual environment in ``.venv/``: made once, recognised later, rebuilt when it is broken.

A virtual environment is a folder with a link to a Python and a ``site-packages`` of its own. It needs pip inside, which
Python brings along in ``ensurepip``. Debian and Ubuntu cut ``ensurepip`` out of their python3 and put it into
python3-venv, so a new machine often cannot make an environment with pip in it. In order, set-up then uses: the package (installed by
root beforehand), ``uv``, ``virtualenv``, and at last pip's wheel, unpacked from the package python3-pip-whl without root.

Leaves out: conda environments; ``labkit setup --here`` works in whatever environment runs it.
See: PEP 405, PEP 668, python3(1).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.setup import apt
from labkit.setup.progress import Step

__all__ = ["describe", "has_ensurepip", "make", "python_of", "venv_package"]

_NAME = "a virtual environment"
_NOT_MADE = "The virtual environment could not be made"
# The Python below the environment that may be running this: found now, since `make` removes a broken environment's link to it.
_BASE_PYTHON = os.path.realpath(sys.executable)
_DESCRIBE = (
    "import json, sys, importlib.util as u; print(json.dumps([sys.version, sys.prefix, bool(u.find_spec('pip'))]))"
)


def python_of(folder: Path) -> Path:
    """Return the path of the environment's Python."""
    return folder / "bin" / "python"


def has_ensurepip() -> bool:
    """Say whether this Python can make an environment with pip in it by itself."""
    result = subprocess.run([_BASE_PYTHON, "-c", "import ensurepip, venv"], capture_output=True, check=False)
    return result.returncode == 0


def venv_package() -> str:
    """Return the name of Debian's package with ``ensurepip`` for this Python, or of Python's own if it is not Debian's."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"python{version}-venv" if f"/usr/bin/python{version}" == _BASE_PYTHON else ""


def describe(folder: Path) -> str:
    """Return the full version of the environment's Python, or an empty string if the environment does not work.

    It does not work when its Python is gone (an upgrade of the distribution), when it is too old, when it has no pip, or
    when the folder was moved: its programs name their Python by its old path.
    """
    try:
        command = [str(python_of(folder)), "-I", "-c", _DESCRIBE]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        version, prefix, has_pip = json.loads(result.stdout)
        pip_script = (folder / "bin" / "pip").read_text()
    except (OSError, ValueError, subprocess.CalledProcessError):
        return ""
    too_old = tuple(int(part) for part in version.split(".")[:2]) < (3, 11)
    is_here = Path(prefix).resolve() == folder.resolve() and str(folder) in pip_script
    return "" if too_old or not has_pip or not is_here else str(version)


def make(folder: Path, step: Step) -> None:
    """Make an environment with pip at ``folder``, in place of what is there; a half-made one is removed again.

    Raises: FeatureMissing when none of the ways to get pip works here; OSError when the old one cannot be removed.
    """
    if folder.is_symlink() or folder.is_file():
        raise FeatureMissing(f"{folder} is no folder.", remedy="Move it away, then run `make setup` again.")
    if folder.exists():
        shutil.rmtree(folder)
    try:
        _make(folder, step)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _make(folder: Path, step: Step) -> None:
    python = _BASE_PYTHON
    if has_ensurepip():
        step.run([python, "-m", "venv", str(folder)], what=_NOT_MADE, remedy=_remedy())
    elif shutil.which("uv"):
        step.announce("with uv")
        step.run(["uv", "venv", "--seed", "--python", python, str(folder)], what=_NOT_MADE, remedy=_remedy())
    elif shutil.which("virtualenv"):
        step.announce("with virtualenv")
        step.run(["virtualenv", "--python", python, str(folder)], what=_NOT_MADE, remedy=_remedy())
    elif apt.can_download():
        step.announce("with pip from python3-pip-whl")
        _make_with_wheel(folder, python, step)
    else:
        raise FeatureMissing(f"{python} has no ensurepip to put pip into {_NAME}.", remedy=_remedy())


def _remedy() -> str:
    package = venv_package()
    wanted = f"{package} (sudo apt-get install {package})" if package else "Python's ensurepip"
    return f"Install {wanted}, or uv or virtualenv, then run `make setup` again."


def _make_with_wheel(folder: Path, python: str, step: Step) -> None:
    step.run([python, "-m", "venv", "--without-pip", str(folder)], what=_NOT_MADE, remedy=_remedy())
    with tempfile.TemporaryDirectory(prefix="labkit-pip-") as unpacked:
        reasons = apt.download(["python3-pip-whl"], Path(unpacked), step)
        wheels = sorted(Path(unpacked).glob("usr/share/python-wheels/pip-*.whl"))
        if not wheels:
            reason = reasons.get("python3-pip-whl", "it holds no wheel")
            raise FeatureMissing(f"There is no pip for {_NAME} (python3-pip-whl: {reason}).", remedy=_remedy())
        # A wheel is a zip file, and Python runs a package straight out of one.
        pip = [str(python_of(folder)), f"{wheels[-1]}/pip", "--disable-pip-version-check"]
        step.run([*pip, "install", "--no-index", str(wheels[-1])], what=_NOT_MADE, remedy=_remedy())
