from __future__ import annotations

import re
import subprocess
import sys

from tests.support import PROJECT, requires


@requires("cgroups")
def test_the_module_runs_alone_and_shows_a_hog_that_is_held_back() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labkit.isolation.cgroups"],
        capture_output=True, text=True, timeout=60, check=False, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"cgroups here: (v1|hybrid|v2)", done.stdout)
    used = re.search(r"it had [\d.]+ s of CPU in [\d.]+ s: ([\d.]+) CPUs", done.stdout)
    assert used is not None and float(used[1]) < 0.4
    assert done.stdout.endswith("deleted\n")


@requires("undelegated")
def test_without_a_group_of_ones_own_it_says_why_and_ends_with_status_1() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labkit.isolation.cgroups"],
        capture_output=True, text=True, timeout=60, check=False, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("labkit: ")
