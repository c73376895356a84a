"""How the course's Jupyter server is set up: options and environment, the same for ``make lab`` and under JupyterHub.

The server runs on the host, with the rights of its user, and answers for files that a student's programs wrote. So each
part of it that touches files or starts programs is either replaced by one that stays below the course folder, or left out. Its
configuration, its data and its extensions come from the environment and from a folder of labkit's own, which no sandbox shows;
the home, where a kernelspec or a configuration might lie in wait, is not asked.

Leaves out: who may log in.
See: Jupyter Server's configuration reference (ServerApp); Jupyter's "Common Directories and File Locations".
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from labkit.container import leftovers, runfolder
from labkit.setup import kernelspec
from labkit.units import MiB

__all__ = ["FIRST_LESSON", "course_options", "enter", "hold_config", "own_environment", "state_folder"]

FIRST_LESSON = "00_start_here.ipynb"
_HIDDEN = ("__pycache__", "*.py", "*~", ".ipynb_checkpoints")
#: The most that one request may bring; a saved notebook is escaped on its way, so this is more than the largest file.
_MOST_REQUEST_BYTES = 64 * MiB


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for settings and data of the course's server: ``$XDG_DATA_HOME/labkit/server``."""
    base = environ.get("XDG_DATA_HOME", "")
    home = Path(environ.get("HOME") or Path.home())
    return (Path(base) if base.startswith("/") else home / ".local/share") / "labkit/server"


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep Jupyter away from the user's home; a folder that somebody has named is respected."""
    state = state_folder(environ)
    own = {
        "JUPYTER_NO_CONFIG": "1",  # only JUPYTER_CONFIG_DIR
        "JUPYTER_CONFIG_DIR": str(state / "config"),
        "JUPYTER_DATA_DIR": str(state / "data"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    return own | {name: environ[name] for name in own if environ.get(name)}


def course_options(notebooks: Path, *, work: Path) -> list[str]:
    """Return the options that any server of the course has; ``work`` is shown in its root, wherever it lies."""
    elsewhere = [] if work.parent == notebooks else [f"--CourseContents.parts={work.name}={work}"]
    return [
        *elsewhere,
        f"--ServerApp.root_dir={notebooks}",
        "--ServerApp.contents_manager_class=labkit.sandbox.server_contents.CourseContents",
        "--ServerApp.kernel_manager_class=labkit.sandbox.server_kernels.CourseKernels",
        "--ServerApp.kernel_spec_manager_class=labkit.sandbox.server_kernels.CourseKernelspecs",
        "--ServerApp.jpserver_extensions=labkit.sandbox.server_routes=True",
        "--ServerApp.jpserver_extensions=jupyterlab=True",
        "--ServerApp.terminals_enabled=False",
        f"--ServerApp.max_body_size={_MOST_REQUEST_BYTES}",
        f"--ServerApp.max_buffer_size={_MOST_REQUEST_BYTES}",
        # A lesson is its .ipynb; the .py beside it is for authors.
        *(f"--ContentsManager.hide_globs={pattern}" for pattern in _HIDDEN),
        # The lessons' kernel alone: a second "Python 3" in the launcher would be a trap, and on the host.
        "--KernelSpecManager.ensure_native_kernel=False",
        f"--KernelSpecManager.allowed_kernelspecs={kernelspec.NAME}",
        f"--MultiKernelManager.default_kernel_name={kernelspec.NAME}",
        # Templates of nbconvert are programs; by default it looks for them in the working folder.
        "--TemplateExporter.extra_template_basedirs=/usr/share/labkit-none",
        "--LabApp.extension_manager=readonly",
        f"--LabApp.default_url=/lab/tree/{FIRST_LESSON}",
        "--LabApp.news_url=",
    ]


def enter(environ: os._Environ[str]) -> None:
    """Set the environment of this process, and leave the folder it was started in, which may be a student's."""
    environ.update(own_environment(environ))
    state = state_folder(environ)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chdir(state)


def hold_config() -> runfolder.RunFolder:
    """Let Jupyter make the empty folder that stands for a configuration (JUPYTER_NO_CONFIG) in one of labkit's, to be removed at the end.

    It would lie in /tmp for ever when the server is killed. This one is held by a lock: the next start finds it, and ``labkit clean``.
    """
    from jupyter_core.paths import jupyter_config_dir

    base = runfolder.base_folder()
    if any(runfolder.dead_folders(base)):
        leftovers.remove(leftovers.find(base))
    folder = runfolder.RunFolder.create(base, f"labkit-server-{secrets.token_hex(4)}")
    before, tempfile.tempdir = tempfile.tempdir, folder.path
    try:
        jupyter_config_dir()  # once a process: it keeps the answer
    finally:
        tempfile.tempdir = before
    return folder
