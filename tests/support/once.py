"""Tests that one run is enough for: what they test is the same for root and for an ordinary user.

Where `make test` has both runs, the tests listed here are left out of the second one, and its summary says so. What
asks the kernel for anything is not among them: a test that requires a feature of the machine (`@requires`), beyond a program or a
module to compare with, runs in both runs wherever it stands.

A run by itself, as an ordinary user's `make test` or `pytest`, leaves nothing out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ELSEWHERE", "PURE", "Pure", "reason"]

#: The variable of the environment that names the other run.
ELSEWHERE = "LABKIT_ALSO_RUNS"
_WITNESSES = ("program:", "module:")


@dataclass(frozen=True, slots=True)
class Pure:
    """Files or folders of tests, and why they need not run for every user."""

    why: str
    places: tuple[str, ...]
    #: Features that these tests stand on and do not test.
    below: tuple[str, ...] = ()


PURE = (
    Pure("pictures are drawn from numbers", ("charts/",)),
    Pure("views draw what they are given", ("widgets/test_layout.py", "widgets/test_cells.py", "widgets/test_doctor_table.py",
        "widgets/test_isolation_matrix.py", "widgets/test_live.py", "widgets/test_race_view.py", "widgets/test_transfer_view.py")),
    Pure("lessons are texts", ("lesson/", "notebooks/")),
    Pure("Compose files are read and compared", ("compose/test_interpolate.py", "compose/test_load.py", "compose/test_plan.py")),
    Pure("Containerfiles are read", ("image/build/test_lexer.py", "image/build/test_parser.py", "image/build/test_variables.py",
        "image/build/test_dockerignore.py")),
    Pure("manifests and references are read", ("image/test_manifest.py", "image/test_reference.py")),
    Pure("a registry and its client exchange messages", ("image/registry/",)),
    Pure("numbers are turned into words for the kernel", ("isolation/test_bpf.py", "isolation/cgroups/test_layout.py",
        "isolation/cgroups/test_limits.py", "isolation/cgroups/test_stats.py", "isolation/cgroups/test_translation.py")),
    Pure("samples are summed up", ("measure/test_stats.py", "measure/test_rounds.py", "measure/test_record.py")),
    Pure("guests are described, not started", ("vm/test_commandline.py", "vm/test_cpio.py", "vm/test_packages.py",
        "vm/test_vmlinux.py", "vm/test_modules.py", "vm/test_timeline.py", "vm/test_console.py")),
    Pure("pages are shown; the sandbox below them has a test in each run", ("browser/test_lab.py", "browser/test_image_views.py",
        "browser/test_live_views.py", "browser/test_transfer_view.py"),
        below=("chromium", "userns", "overlay-userns", "cgroups", "pyseccomp")),
    Pure("the source is read", ("test_api.py", "test_layers.py", "test_style.py", "test_text.py", "test_packaging.py", "test_units.py",
        "test_errors.py")),
    Pure("pytest is run on little test files", ("support/test_report.py", "support/test_runs.py", "support/test_turns.py",
        "support/test_once.py")),
)  # fmt: skip


def reason(nodeid: str, features: Iterable[str]) -> str:
    """Return why the test ``nodeid`` is left to the other run; nothing if it is not, or if there is no other run."""
    other = os.environ.get(ELSEWHERE)
    place = nodeid.removeprefix("tests/")
    pure = next((pure for pure in PURE if place.startswith(pure.places)), None)
    if not other or pure is None or any(not name.startswith((*_WITNESSES, *pure.below)) for name in features):
        return ""
    return f"only in the {other} run ({pure.why})"
