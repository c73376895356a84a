"""``labkit setup``: from a fresh clone to a working course, and nothing to do the second time.

Before there is an environment it runs on the system's Python as ``python3 -m labkit.setup`` (the Makefile does that), so
this package imports only the standard library.

See: labkit.setup.steps.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from labkit.errors import LabkitError
from labkit.setup import parts, steps
from labkit.setup.progress import Progress

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit setup`` to ``parser``."""
    parser.add_argument("--dev", action="store_true", help="also install what tests and lesson authors need")
    parser.add_argument("--again", action="store_true", help="repeat every step, also those that are done")
    parser.add_argument(
        "--here", action="store_true", help="use the Python that runs this instead of .venv/ (Binder, conda)"
    )
    parser.add_argument("--verbose", action="store_true", help="show everything that pip and apt-get print")


def run(args: argparse.Namespace) -> int:
    """Carry out set-up as ``args`` say; return 0 when the course can start, 1 when it cannot."""
    started_s = time.monotonic()
    try:
        plan = steps.Plan(steps.checkout_folder(), dev=args.dev, here=args.here)
        worked = steps.run(plan, Progress(0, verbose=args.verbose), again=args.again)
    except LabkitError as error:
        print(f"labkit: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"labkit: set-up cannot go on: {error.filename or 'the system'}: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlabkit: set-up was interrupted; run it again and it goes on from there.", file=sys.stderr)
        return 130
    lacking = ", ".join(part.name for part in parts.missing(plan.parts))
    without = f", without {lacking} (`make setup ARGS=--again` says why)" if lacking and not worked else ""
    elapsed_s = time.monotonic() - started_s
    print(f"labkit: set-up {f'finished in {elapsed_s:.0f} s' if worked else 'is complete'}{without}.", file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` and run."""
    parser = argparse.ArgumentParser(
        prog="labkit setup", description="Set up everything the course needs on this machine."
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))
