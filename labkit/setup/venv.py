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

_NOT_MADE = "The virtual environment could not be made"
_NO_PIP_REMEDY = "Install {package} (Debian, Ubuntu: sudo apt-get install {package}), or uv or virtualenv, then run `make setup` again."
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
    """Return the name of Debian's package that has ``ensurepip`` for this Python."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}-venv"


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
    """Make an environment with pip at ``folder``, in place of what is there.

    Raises: FeatureMissing when none of the ways to get pip works here.
    """
    if folder.is_symlink() or folder.is_file():
        raise FeatureMissing(f"{folder} is no folder.", remedy="Move it away, then run `make setup` again.")
    if folder.exists():
        shutil.rmtree(folder)
    python, remedy = _BASE_PYTHON, _NO_PIP_REMEDY.format(package=venv_package())
    if has_ensurepip():
        step.run([python, "-m", "venv", str(folder)], what=_NOT_MADE, remedy=remedy)
    elif shutil.which("uv"):
        step.announce("with uv")
        step.run(["uv", "venv", "--seed", "--python", python, str(folder)], what=_NOT_MADE, remedy=remedy)
    elif shutil.which("virtualenv"):
        step.announce("with virtualenv")
        step.run(["virtualenv", "--python", python, str(folder)], what=_NOT_MADE, remedy=remedy)
    elif apt.can_download():
        step.announce("with pip from python3-pip-whl")
        _make_with_wheel(folder, python, step, remedy=remedy)
    else:
        raise FeatureMissing(
            f"{python} has no ensurepip, so it cannot put pip into a virtual environment.", remedy=remedy
        )


def _make_with_wheel(folder: Path, python: str, step: Step, *, remedy: str) -> None:
    step.run([python, "-m", "venv", "--without-pip", str(folder)], what=_NOT_MADE, remedy=remedy)
    with tempfile.TemporaryDirectory(prefix="labkit-pip-") as unpacked:
        reasons = apt.download(["python3-pip-whl"], Path(unpacked), step)
        wheels = sorted(Path(unpacked).glob("usr/share/python-wheels/pip-*.whl"))
        if not wheels:
            reason = reasons.get("python3-pip-whl", "it holds no wheel")
            raise FeatureMissing(
                f"There is no pip for a virtual environment (python3-pip-whl: {reason}).", remedy=remedy
            )
        # A wheel is a zip file, and Python runs a package straight out of one.
        command = [
            str(python_of(folder)),
            f"{wheels[-1]}/pip",
            "install",
            "--no-index",
            "--disable-pip-version-check",
            str(wheels[-1]),
        ]
        step.run(command, what=_NOT_MADE, remedy=remedy)
