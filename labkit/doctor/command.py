"""``labkit doctor``: print what this machine can do.

Exit status: 0 whatever is found; with ``--lesson``, 1 if the lesson's main point cannot be shown here.
"""

from __future__ import annotations

import argparse
import sys

from labkit.doctor import LESSONS, LessonState, examine, needs

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--lesson", metavar="NN", help=f"only what one lesson needs, {LESSONS[0].lesson} to {LESSONS[-1].lesson}"
    )


def run(args: argparse.Namespace) -> int:
    """Print the report. Raises: InvalidSpec for a lesson that there is not."""
    wanted = needs(args.lesson) if args.lesson else None
    report = examine()
    lessons = report.lessons() if wanted is None else (report.lesson(wanted.lesson),)
    if args.json:
        text = report.to_json()
    else:
        names = None if wanted is None else {*wanted.requires, *wanted.uses}
        text = "\n".join((report.table(only=names), "", *map(_line, lessons)))
    sys.stdout.write(text + "\n")
    return int(wanted is not None and lessons[0].state == "no")


def _line(item: LessonState) -> str:
    states = {"yes": "everything can be shown", "limited": "its main points can be shown", "no": "needs a recording"}
    missing = f" (missing: {', '.join(item.missing)})" if item.missing else ""
    return f"{item.lesson}  {item.title:<38} {states[item.state]}{missing}"
