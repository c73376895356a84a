"""Merge the reports of several test runs into one table: ``python -m tests.support.summary FOLDER``.

The last line is ``N passed, N failed, N skipped``; the exit status is 1 if a test failed or a feature was missing.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.support.report import Counts, left_out_lines, table

__all__ = ["NO_TESTS", "main", "summarize"]

#: pytest's status when no test was chosen.
NO_TESTS = 5


def summarize(folder: Path) -> tuple[list[str], bool]:
    """Return the lines of the merged report and whether every run was good."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not runs:
        return [f"{folder} holds no report of a test run", "0 passed, 0 failed, 0 skipped"], False
    lines: list[str] = []
    outcomes: Counter[str] = Counter()
    for run in runs:
        outcomes.update(run["outcomes"])
        counted = ", ".join(f"{run['outcomes'].get(name, 0)} {name}" for name in ("passed", "failed", "skipped"))
        lines.append(f"== {run['run']} run: {counted}")
        lines += table({name: Counts(**counts) for name, counts in run["features"].items()})
        lines += [f"skipped for another reason, {n} tests: {why}" for why, n in sorted(run["other_skips"].items())]
        lines += left_out_lines(run["left_out"])
        lines += [f"MISSING: {failure}" for failure in run["must_have_failures"]]
        if (
            run["exit_status"] not in (0, NO_TESTS)
            and not run["outcomes"].get("failed")
            and not run["must_have_failures"]
        ):
            lines.append(f"the {run['run']} run ended with status {run['exit_status']}")
    lines += ["", "== all runs", *table(_merged(runs))]
    lines.append(f"{outcomes['passed']} passed, {outcomes['failed']} failed, {outcomes['skipped']} skipped")
    # A choice of tests (-k) may leave nothing to do for one run, but not for all; the notebooks always run.
    good = all(run["exit_status"] in (0, NO_TESTS) for run in runs)
    return lines, good and any(run["outcomes"] for run in runs if run["run"] != "notebooks")


def _merged(runs: Sequence[dict[str, dict[str, dict[str, object]]]]) -> dict[str, Counts]:
    merged: dict[str, Counts] = {}
    for run in runs:
        for name, fields in run["features"].items():
            counts = Counts(**fields)  # type: ignore[arg-type]  # from JSON
            total = merged.setdefault(name, Counts(False, counts.why_not))
            total.ran += counts.ran
            total.skipped += counts.skipped
            if counts.present:
                total.present, total.why_not = True, ""
    return merged


def main(arguments: Sequence[str]) -> int:
    """Print the merged report of the folder that ``arguments`` names."""
    if len(arguments) != 1:
        print("usage: python -m tests.support.summary FOLDER", file=sys.stderr)
        return 2
    lines, good = summarize(Path(arguments[0]))
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
