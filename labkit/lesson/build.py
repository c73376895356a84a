"""Make the notebooks: ``python -m labkit.lesson.build [--check] [NAMES…]`` turns ``NN_topic.py`` into an executed ``NN_topic.ipynb``.

The Python file is the source (percent format: ``# %% [markdown]`` with prose in triple quotes, ``# %%`` with code). The notebook
is built from it in one direction only: cells get ids from a hash of their source, so building twice gives the same file; a real
jupyter_kernel runs them from top to bottom; what is random or private (widget ids, timings, the machine's name and folders) is taken out. The
outputs stay, those of live cells too, so the notebook reads without a Python process. ``--check`` compares the two files and the
rules of a lesson without running anything; nbval then runs the cells and compares their outputs.

Leaves out: going from the notebook back to its source (never edit the ``.ipynb``).
See: jupytext's percent format; nbformat 4.5; nbval.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat

import labkit
from labkit.errors import FeatureMissing, InvalidSpec, LabkitError
from labkit.lesson.rules import MOST_NOTEBOOK_BYTES, must_be_folded, problems_in
from labkit.setup.kernelspec import DISPLAY_NAME
from labkit.widgets.layout import VIEW_MIME

__all__ = ["KERNEL_NAME", "build", "check_built", "main", "read_source_notebook"]

KERNEL_NAME = "labkit"
#: A lesson that hangs stops the build after this long in one cell.
CELL_TIMEOUT_S = 180
_METADATA: dict[str, Any] = {
    "kernelspec": {"display_name": DISPLAY_NAME, "language": "python", "name": KERNEL_NAME},
    # Without the version: it would differ from machine to machine.
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
_SHORTEST_HOST_NAME = 4


def read_source_notebook(source_path: Path) -> Any:
    """Return the notebook that ``source_path`` describes, not yet executed, with ids derived from the cells.

    Raises: InvalidSpec if the file is not there or is no percent-format Python file.
    """
    import jupytext

    if not source_path.is_file():
        raise InvalidSpec(f"{source_path} is not there: a lesson's source is notebooks/NN_topic.py.")
    notebook = jupytext.read(source_path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(_METADATA)  # type: ignore[no-untyped-call]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        cell.metadata = _cell_metadata(cell)
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def build(source_path: Path, *, kernel_name: str = KERNEL_NAME) -> Path:
    """Execute the lesson at ``source_path`` and write the notebook beside it; return the notebook's path.

    Raises: FeatureMissing if the jupyter_kernel is not installed, InvalidSpec if a cell fails or a rule is broken (the old
    notebook then stays as it was).
    """
    notebook = read_source_notebook(source_path)
    _execute(notebook, folder=source_path.parent, kernel_name=kernel_name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _clean_cell(cell, folder=source_path.parent)
    notebook.metadata["labkit"] = _built_on()
    problems = problems_in(notebook, folder=source_path.parent)
    if problems:
        raise InvalidSpec(
            f"{source_path.name} breaks {len(problems)} rule(s):\n" + "\n".join(f"  {p}" for p in problems)
        )
    text = nbformat.writes(notebook) + "\n"  # type: ignore[no-untyped-call]
    if len(text.encode()) >= MOST_NOTEBOOK_BYTES:
        raise InvalidSpec(
            f"{source_path.name} would become {len(text.encode())} bytes: the limit is {MOST_NOTEBOOK_BYTES}."
        )
    notebook_path = source_path.with_suffix(".ipynb")
    partial = notebook_path.with_name(f".{notebook_path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(notebook_path)
    return notebook_path


def check_built(source_path: Path) -> list[str]:
    """Return what is wrong with the notebook built from ``source_path``, one sentence each; runs nothing."""
    notebook_path = source_path.with_suffix(".ipynb")
    if not notebook_path.is_file():
        return [f"{notebook_path.name} is not built: run `make notebooks`."]
    wanted = read_source_notebook(source_path)
    built = nbformat.read(notebook_path, as_version=4)  # type: ignore[no-untyped-call]
    problems = [] if _plan(built) == _plan(wanted) else [_first_difference(built, wanted)]
    if {key: value for key, value in built.metadata.items() if key != "labkit"} != wanted.metadata:
        problems.append("the notebook's metadata is not what the build writes: run `make notebooks`.")
    if notebook_path.stat().st_size >= MOST_NOTEBOOK_BYTES:
        problems.append(f"the file has {notebook_path.stat().st_size} bytes: the limit is {MOST_NOTEBOOK_BYTES}.")
    return problems + problems_in(built, folder=source_path.parent)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or check the named lessons (default: all); return 0 if all went well, 1 if not, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m labkit.lesson.build", description="Build the notebooks from their sources."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="lessons to build, as in 03_namespaces (default: all)")
    parser.add_argument("--check", action="store_true", help="run nothing; say whether notebooks and sources agree")
    parser.add_argument(
        "--folder", type=Path, default=Path("notebooks"), help="where the lessons are (default: notebooks)"
    )
    parser.add_argument(
        "--kernel", default=KERNEL_NAME, help=f"the jupyter_kernel that runs them (default: {KERNEL_NAME})"
    )
    chosen = parser.parse_args(arguments)
    try:
        sources = _sources(chosen.folder, chosen.names)
    except InvalidSpec as error:
        print(error, file=sys.stderr)
        return 2
    failed = 0
    for source_path in sources:
        failed += not (
            _report_check(source_path) if chosen.check else _report_build(source_path, kernel_name=chosen.kernel)
        )
    return 1 if failed else 0


def _sources(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the lessons' source files, in order. Raises: InvalidSpec for a name that is none."""
    known = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.py"))}
    wanted = [Path(name).stem for name in names] or list(known)
    missing = [name for name in wanted if name not in known]
    if missing or not known:
        raise InvalidSpec(
            f"no lesson {', '.join(missing) or 'at all'} in {folder}/: there are {', '.join(known) or 'none'}."
        )
    return [known[name] for name in wanted]


def _report_check(source_path: Path) -> bool:
    problems = check_built(source_path)
    for problem in problems:
        print(f"{source_path.stem}: {problem}")
    if not problems:
        print(f"{source_path.stem}: agrees")
    return not problems


def _report_build(source_path: Path, *, kernel_name: str) -> bool:
    begun_s = time.monotonic()
    try:
        built = build(source_path, kernel_name=kernel_name)
    except LabkitError as error:
        print(f"{source_path.stem}: {error}", file=sys.stderr)
        return False
    print(f"{source_path.stem}: built in {time.monotonic() - begun_s:.1f} s, {built.stat().st_size // 1024} KiB")
    return True


def _execute(notebook: Any, *, folder: Path, kernel_name: str) -> None:
    """Run all cells in ``folder``. Raises: FeatureMissing without the jupyter_kernel, InvalidSpec for a failing cell."""
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        kernel_name=kernel_name,
        timeout=CELL_TIMEOUT_S,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    )
    try:
        client.execute()
    except NoSuchKernel as error:
        raise FeatureMissing(
            f"the jupyter_kernel {kernel_name!r} is not installed.", remedy="Run `make setup`, which installs it."
        ) from error
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise InvalidSpec(f"a cell failed, so the notebook was left as it was:\n{error}") from error
    finally:
        # nbclient writes what the jupyter_kernel said about itself; the version in it is this machine's.
        notebook.metadata = nbformat.from_dict(_METADATA)  # type: ignore[no-untyped-call]


def _built_on() -> dict[str, str]:
    """Return what stands beside an output that is shown as a recording: machine, versions, day; two builds of a day agree."""
    system = os.uname()
    return {
        "machine": f"{system.sysname} {system.release.partition('-')[0]} on {system.machine}",
        "labkit": f"labkit {labkit.__version__}",
        "python": f"Python {platform.python_version()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _cell_metadata(cell: Any) -> Any:
    """Return a cell's metadata; what gives an answer away is folded without the author writing more than a tag, or nothing."""
    kept = {key: value for key, value in cell.metadata.items() if key in ("tags", "jupyter", "slideshow")}
    if cell.cell_type == "code" and must_be_folded(cell):
        kept["jupyter"] = {**kept.get("jupyter", {}), "source_hidden": True}
    return nbformat.from_dict(kept)  # type: ignore[no-untyped-call]


def _clean_cell(cell: Any, *, folder: Path) -> None:
    """Take out of a code cell what is random or private: widget ids, timings, the machine's name, folders."""
    cell.metadata.pop("execution", None)
    for output in cell.outputs:
        if "text" in output:
            output.text = _scrub(output.text, folder=folder)
        data = output.get("data", {})
        data.pop(VIEW_MIME, None)
        for mime in ("text/plain", "text/html", "text/markdown"):
            if mime in data:
                data[mime] = _scrub(data[mime], folder=folder)


def _scrub(text: str, *, folder: Path) -> str:
    """Return ``text`` without the folders and, where it is long enough to be no ordinary word, the name of this machine."""
    for private, public in ((folder.resolve(), "notebooks"), (folder.resolve().parent, "."), (Path.home(), "~")):
        if len(private.parts) > 1:
            # Whole paths only: the home /root is not part of /stage/root.
            text = re.sub(rf"(?<![\w./~-]){re.escape(str(private))}(?![\w.-])", public, text)
    host_name = socket.gethostname()
    return text.replace(host_name, "this-machine") if len(host_name) >= _SHORTEST_HOST_NAME else text


def _plan(notebook: Any) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Return what source and notebook must agree on: id, kind, text and metadata of each cell."""
    return [(cell.id, cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]


def _first_difference(built: Any, wanted: Any) -> str:
    for number, (old, new) in enumerate(zip(_plan(built), _plan(wanted), strict=False), start=1):
        if old != new:
            start = new[2].splitlines()[0] if new[2] else "(empty)"
            return f"cell {number} ({start[:60]!r}) is not what the source says: run `make notebooks`, never edit the .ipynb."
    return f"the notebook has {len(built.cells)} cells, the source {len(wanted.cells)}: run `make notebooks`."


if __name__ == "__main__":
    sys.exit(main())
