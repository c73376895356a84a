"""What JupyterLab is told: the kernel that runs the lessons, and settings that keep the page to the lessons.

A kernelspec is a folder with a ``kernel.json`` that says how to start a kernel. labkit's lies inside the environment
(``share/jupyter/kernels/labkit``), where JupyterLab of the same environment finds it, and nothing outside changes. The
settings are JupyterLab's ``overrides.json``: defaults of this environment, which a student's own settings still outrank.

The kernelspec names a *provisioner*: who starts the kernel, here inside a sandbox (`labkit.sandbox.provisioner`).

See: the Jupyter client's "Kernel specs"; JupyterLab's "overrides.json".
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

__all__ = ["DISPLAY_NAME", "NAME", "PROVISIONER", "folder_in", "install", "remove", "spec"]

NAME = "labkit"
DISPLAY_NAME = "Python (labkit sandbox)"
#: The name under which `labkit.sandbox.provisioner` is known to Jupyter (an entry point, in pyproject.toml).
PROVISIONER = "labkit-sandbox"

_SETTINGS = "share/jupyter/lab/settings/overrides.json"
_OVERRIDES: dict[str, Any] = {
    # Otherwise the first thing a student sees is a question about news of the Jupyter project.
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
    # A link to a page of text (the glossary) opens the page, not its source.
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
}


def spec(python: Path) -> dict[str, Any]:
    """Return the contents of ``kernel.json`` for a kernel that ``python`` runs."""
    return {
        "argv": [str(python), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": DISPLAY_NAME,
        "language": "python",
        "metadata": {"debugger": True, "kernel_provisioner": {"provisioner_name": PROVISIONER}},
    }


def folder_in(prefix: Path) -> Path:
    """Return the kernelspec's folder in the environment ``prefix``, whether it is there or not."""
    return prefix / "share/jupyter/kernels" / NAME


def install(prefix: Path, python: Path) -> Path:
    """Write the kernelspec and the settings below ``prefix``; return the kernelspec's folder."""
    folder = folder_in(prefix)
    _write(folder / "kernel.json", spec(python))
    _write(prefix / _SETTINGS, _OVERRIDES)
    return folder


def remove(prefix: Path) -> None:
    """Remove what `install` wrote. Raises: OSError."""
    shutil.rmtree(folder_in(prefix))
    settings = prefix / _SETTINGS
    if settings.is_file() and json.loads(settings.read_text()) == _OVERRIDES:
        settings.unlink()


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
