"""``labkit race``: how fast processes, namespaces, containers and other tools' containers start, here and now.

See: `labkit.measure.startup` for what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import sys

from labkit import units
from labkit.measure.startup import MACHINE_NAMES, NAMES, Race, Row, race

__all__ = ["add_arguments", "run", "table"]

_BAR_CELLS = 30
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit race``."""
    parser.add_argument("--n", default="20", metavar="N", help="rounds that are counted (default: 20)")
    parser.add_argument("--json", action="store_true", help="print host and raw samples as JSON")
    parser.add_argument(
        "--vm", action="store_true", help="let virtual machines take part, too; a round takes seconds then"
    )
    everybody = ", ".join((*NAMES, *MACHINE_NAMES))
    parser.add_argument("--only", metavar="NAMES", help=f"who takes part, with commas between: {everybody}")


def run(args: argparse.Namespace) -> int:
    """Hold the race and print the result; return 0."""
    only = [*NAMES, *MACHINE_NAMES] if args.vm else None
    if args.only is not None:
        only = [name.strip() for name in args.only.split(",") if name.strip()]
    show = _show_progress if sys.stderr.isatty() else None
    result = race(units.parse_count(args.n, what="rounds"), only=only, progress=show)
    if show is not None:
        print("\r\x1b[K", end="", file=sys.stderr)
    if args.json:
        json.dump(result.to_json(), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(table(result)))
    return 0


def _show_progress(done: int, total: int) -> None:
    print(f"\rround {done} of {total}", end="", file=sys.stderr, flush=True)


def table(result: Race) -> list[str]:
    """Return the race as lines of text: median, spread, n and a bar a contender, then who could not run and why."""
    longest_ms = max((row.summary.median for row in result.ran), default=1.0)
    width = max((len(row.name) for row in result.rows), default=0)
    lines = [f"{'':{width}}  median ms  spread ms    n"]
    lines += [_line(row, width, longest_ms) for row in result.ran]
    skipped = [row for row in result.rows if row.skipped]
    if skipped:
        lines += ["", "did not run here:", *(f"{row.name:{width}}  {row.skipped}" for row in skipped)]
    return [
        *lines,
        "",
        str(result.host),
        "spread: the width of the middle half of the samples; all contenders took turns.",
    ]


def _line(row: Row, width: int, longest_ms: float) -> str:
    summary = row.summary
    filled, part = divmod(round(summary.median / longest_ms * _BAR_CELLS * 8), 8)
    bar = "█" * filled + _EIGHTHS[part].strip()
    return f"{row.name:{width}}  {summary.median:9.2f}  {summary.spread:9.2f}  {summary.n:3}  {bar}"
