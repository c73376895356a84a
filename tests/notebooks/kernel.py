"""Notebooks made, run and tested in a child process, with a plain jupyter_kernel that has the name of the course's.

Everything Jupyter starts (a jupyter_kernel, event loops, sockets) lives and ends in the child, so that a test sees only what was printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support import PROJECT

__all__ = ["PYTHON_PATH", "kernel_environment", "printed_by", "python", "run_cells"]

_RUN_CELLS = """
import json, sys, time
import nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(text) for text in json.load(sys.stdin)]
client = NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_name="python3", timeout=60)
with client.setup_kernel():
    for number, cell in enumerate(client.nb.cells):
        client.execute_cell(cell, number)
    ended = time.monotonic()
shutdown_s = time.monotonic() - ended
json.dump([[cell.outputs for cell in client.nb.cells], shutdown_s], sys.stdout)
"""


#: Where the children find labkit, before what this process was told.
PYTHON_PATH = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))


def python(*arguments: str | Path, cwd: Path, environ: dict[str, str], timeout_s: float = 280, **more: Any) -> Any:
    """Run this Python with ``arguments`` in ``cwd``; return the completed process with its output as text."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout_s, check=False, **more
    )


def kernel_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which the kernelspec ``labkit`` is this Python's ipykernel; its files lie in ``folder``."""
    spec = folder / "jupyter" / "kernels" / "labkit" / "kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python (labkit)", "language": "python"}))
    runtime_dir = folder / "runtime"
    runtime_dir.mkdir(exist_ok=True)
    own = {
        "JUPYTER_PATH": str(folder / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(runtime_dir),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "LABKIT_PROGRESS": str(folder / "progress.json"),
        "PYTHONPATH": PYTHON_PATH,
    }
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | own


def run_cells(cells: Sequence[str]) -> tuple[list[list[Any]], float]:
    """Run ``cells`` in a new jupyter_kernel; return each cell's outputs, and how long the jupyter_kernel took to end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = python("-c", _RUN_CELLS, cwd=PROJECT, environ=environ | {"PYTHONPATH": PYTHON_PATH}, input=json.dumps(cells))
    assert done.returncode == 0, done.stderr
    outputs, shutdown_s = json.loads(done.stdout)
    return outputs, shutdown_s


def printed_by(outputs: list[Any]) -> str:
    """Return what a cell printed."""
    return "".join(output.get("text", "") for output in outputs)
