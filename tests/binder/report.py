"""Write docs/pod.md anew: ``python -m tests.binder.report`` (as root, with Debian's dockerd installed)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.binder.pod import LIMITS, pod
from tests.support import PROJECT

__all__ = ["DOCUMENT", "main", "table"]

DOCUMENT = PROJECT / "docs/pod.md"
_TEXT = """# The course in a pod

A pod of Binder, or of a cluster with its defaults, forbids most of what the course is about. This page says what is left of each
lesson there. `python -m tests.binder.report` writes it, from a run of all fifteen notebooks in a container of Docker's
with Docker's default filter of system calls and cgroups mounted read-only; `tests/binder/test_pod.py` runs them again:

```
docker run {limits}
```

No cell raises. `labkit doctor` names each of the {refused} features that are refused there, the rule, and a remedy; the ones that explain
nearly all of it:

{rules}

The kernel itself runs without a sandbox and says so in its first output: labkit cannot make one there, and the pod is around it all the
same. A cell that cannot run says which rule refuses, and shows what it gave where the notebook was built, marked as a recording
with machine, versions and day (`labkit.lesson.stand_in`). Where a measurement has a recording of its own, `labkit.lesson.recorded` shows that.
A check that was not made says "not shown here".

{table}

*Checks passed* are claims that held in the pod itself. *Cells recorded* count the cells with an output that is a recording, or would be if the
cell had any. This pod has no guest kernel, so no virtual machine either; where `labkit setup vm` could fetch one (it needs the
network once, not root), lessons 01 and 02 boot real guests by software emulation, and the sandboxed kernel itself can live in one.
"""


def table(lessons: Iterable[Mapping[str, Any]]) -> str:
    """Return the table of what each lesson came to."""
    rows = [
        "| # | lesson | seconds | checks passed | not shown | cells recorded | so it is |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in lessons:
        number, _, topic = found["name"].partition("_")
        recorded = found["stood_in"] + found["recordings"]
        rows.append(
            f"| {number} | {topic.replace('_', ' ')} | {found['elapsed_s']:.0f} | {found['passed']} | {len(found['not_shown'])}"
            f" | {recorded} | {_kind(found['passed'], recorded)} |"
        )
    return "\n".join(rows)


def _kind(passed: int, recorded: int) -> str:
    if not recorded:
        return "real"
    return "real and recorded" if passed > 0 else "recorded"


def main() -> int:
    """Run the doctor and the lessons in a pod and write the page."""
    with (
        tempfile.TemporaryDirectory(prefix="labkit-pod-", ignore_cleanup_errors=True) as folder,
        pod(Path(folder)) as here,
    ):
        doctor = here.run("labkit doctor", timeout_s=60).stdout.decode()
        lessons = here.lessons()
    lines = [
        line.strip().removeprefix("Rule: ")
        for line in doctor.splitlines()
        if "Rule: a seccomp" in line or "tree /sys" in line
    ]
    rules = "\n".join(f"- {line}" for line in dict.fromkeys(lines))
    page = _TEXT.format(limits=" ".join(LIMITS), refused=doctor.count("✘ no "), rules=rules, table=table(lessons))
    DOCUMENT.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
