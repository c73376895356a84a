"""What the student has done so far, in one small JSON file that only this machine reads.

The file lies in ``~/work`` where that folder exists (the sandboxed jupyter_kernel keeps it when the rest of the home is thrown
away), else in the user's data folder. It is written to a neighbour and renamed over the old one: a crash leaves the
old file or the new one, never half of either. A damaged file counts as empty: progress is a courtesy, not a record.

Leaves out: merging two notebooks that write in the same millisecond (the last one wins); other machines.
See: rename(2); XDG Base Directory Specification.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from labkit.lesson.display import Text, show_text
from labkit.widgets.layout import table_html

__all__ = [
    "Done",
    "begin",
    "current_lesson",
    "current_notebook",
    "progress_path",
    "read_progress",
    "record",
    "show_progress",
]

log = logging.getLogger(__name__)

#: Lesson name -> kind ("predict", "quiz", "exercise", "check") -> what was asked -> what the student did.
Done = dict[str, dict[str, dict[str, Any]]]

_KINDS = ("predict", "quiz", "exercise")
_lesson = "unnamed"


def begin(lesson: str) -> None:
    """Say which lesson this notebook is (``"03_namespaces"``); what follows is remembered under that name."""
    global _lesson
    _lesson = lesson


def current_lesson() -> str:
    """Return the name that `begin` set."""
    return _lesson


def current_notebook() -> Path:
    """Return where the notebook of this lesson lies: in the working folder, else in the checkout."""
    here = Path.cwd() / f"{_lesson}.ipynb"
    return here if here.is_file() else Path(__file__).resolve().parents[2] / "notebooks" / here.name


def progress_path() -> Path:
    """Return where progress is kept; the environment's ``LABKIT_PROGRESS`` overrides the two usual places."""
    chosen = os.environ.get("LABKIT_PROGRESS")
    if chosen:
        return Path(chosen)
    work = Path.home() / "work"
    if work.is_dir() and os.access(work, os.W_OK):
        return work / "labkit-progress.json"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "labkit" / "progress.json"


def read_progress() -> Done:
    """Return all that is remembered; nothing if there is no file or it cannot be understood."""
    try:
        found = json.loads(progress_path().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.debug("no progress read: %s", error)
        return {}
    return found if _has_shape(found) else {}


def record(kind: str, asked: str, *, did: Any) -> None:
    """Remember that the student ``did`` something about ``asked``. A folder that cannot be written costs only the memory."""
    done = read_progress()
    done.setdefault(_lesson, {}).setdefault(kind, {})[asked] = did
    try:
        _replace(progress_path(), json.dumps(done, indent=1, ensure_ascii=False, sort_keys=True))
    except OSError as error:
        log.debug("progress not kept: %s", error)


def show_progress(folder: Path | None = None) -> None:
    """Show a table of what has been done in each lesson of ``folder`` (default: where this notebook is), and how much there is."""
    done, there = read_progress(), _tasks_in(folder or Path("."))
    if not done and not there:
        show_text(Text(plain="Nothing done yet: predictions, quizzes and exercises will be counted here."))
        return
    rows = []
    for name in sorted(done.keys() | there.keys()):
        counts = [len(done.get(name, {}).get(kind, {})) for kind in _KINDS]
        ends = [f" of {most}" for most in there[name]] if name in there else ["", "", ""]
        rows.append((name, *(f"{count}{end}" for count, end in zip(counts, ends, strict=True))))
    heads = ("lesson", "predictions made", "quizzes right", "exercises passed")
    plain = "\n".join(" | ".join(row) for row in (heads, *rows))
    show_text(Text(plain=plain, html=table_html(heads, rows, caption="What you have done so far")))


def _tasks_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return how many predictions, quizzes and exercises each notebook in ``folder`` has; what cannot be read has none."""
    found = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found[path.stem] = tuple(code.count(f"lesson.{kind}(") for kind in _KINDS)
    return found


def _has_shape(found: Any) -> bool:
    """Return whether ``found`` is three levels of dictionaries, so that no reader of it has to ask again."""
    return isinstance(found, dict) and all(
        isinstance(kinds, dict) and all(isinstance(asked, dict) for asked in kinds.values()) for kinds in found.values()
    )


def _replace(path: Path, text: str) -> None:
    """Write ``text`` beside ``path``, then rename it over ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
