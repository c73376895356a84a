"""Run lessons with nbclient where this program runs, as a pod's student would, and print what each of them came to.

One line of JSON a notebook: the seconds it took, the errors of its cells, how many checks passed, which said "not shown here", which
recordings stood in for a measurement, and what the kernel said about its sandbox.

``python -m tests.binder.inside FOLDER [NAME…]`` runs the notebooks of FOLDER whose names begin with one of NAME.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

__all__ = ["look_at", "main"]

CELL_TIMEOUT_S = 240
_PASSED = re.compile(r"^pass: ", re.M)
_NOT_SHOWN = re.compile(r"^not shown here: (.*)$", re.M)
_RECORDED = re.compile(r"Recording made on \d{4}-\d\d-\d\d")
_REFUSED = re.compile(r"Not on this machine: (.*)")


def look_at(path: Path) -> dict[str, Any]:
    """Run one notebook and return what came of it; an error of a cell is a finding, not an exception."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, allow_errors=True, resources={"metadata": {"path": str(path.parent)}}
    )
    begun_s, died = time.monotonic(), ""
    try:
        client.execute()
    except (CellTimeoutError, DeadKernelError) as error:
        died = f"{type(error).__name__}: {error}"
    text = "\n".join(_texts(notebook))
    return {
        "name": path.stem,
        "elapsed_s": round(time.monotonic() - begun_s, 1),
        "died": died,
        "errors": list(_errors(notebook)),
        "passed": len(_PASSED.findall(text)),
        "not_shown": _NOT_SHOWN.findall(text),
        "recordings": len(_RECORDED.findall(text)),
        "stood_in": text.count("Not run on this machine: "),
        "refused": _REFUSED.findall(text),
        "warned": "This machine does not allow" in text,
    }


def _errors(notebook: Any) -> Iterator[str]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                yield f"{output.ename}: {output.evalue}\n  in: {cell.source}"


def _texts(notebook: Any) -> Iterator[str]:
    """Yield what a student reads, as plain text."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                yield output.text
            else:
                yield str(output.get("data", {}).get("text/plain", ""))


def main(folder: str, *names: str) -> None:
    """Run the notebooks and print a line for each as soon as it has ended."""
    for path in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb")):
        if not names or path.name.startswith(names):
            print(json.dumps(look_at(path)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
