"""Look at lessons: ``python -m tests.browser.shoot [--dark] [--out DIR] NOTEBOOK…`` runs each in JupyterLab and takes its picture.

For each notebook it prints how long it took, whether cells failed, what the console said and what axe-core objects to (where
axe-playwright-python is installed). The jupyter_kernel is the installed one, named ``labkit``; ``--plain-kernel`` takes this Python's.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

from tests.browser.lab import CellsFailed, Lab

__all__ = ["main"]


def main() -> int:
    """Run and show the named notebooks; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.browser.shoot", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument(
        "--out", type=Path, default=Path("screenshots"), help="where the pictures go (default: screenshots)"
    )
    parser.add_argument("--dark", action="store_true", help="with JupyterLab's dark theme")
    parser.add_argument(
        "--plain-kernel", action="store_true", help="this Python instead of the installed jupyter_kernel"
    )
    parser.add_argument("--timeout", type=float, default=300, help="seconds that one notebook may take (default: 300)")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path in chosen.notebooks:
        python = sys.executable if chosen.plain_kernel else None
        with Lab(path.resolve().parent, dark=chosen.dark, kernel_python=python) as lab:
            failed += not _look_at(lab, path, out=chosen.out, timeout_s=chosen.timeout)
    return 1 if failed else 0


def _look_at(lab: Lab, path: Path, *, out: Path, timeout_s: float) -> bool:
    page = lab.open(path.name)
    begun_s, said = time.monotonic(), "all cells ran"
    try:
        lab.run_all(page, timeout_s=timeout_s)
    except CellsFailed as error:
        said = str(error)
    elapsed_s = time.monotonic() - begun_s
    picture = lab.screenshot(page, out / f"{path.stem}{'-dark' if lab.dark else ''}.png")
    print(f"{path.stem}: {said} in {elapsed_s:.1f} s; picture: {picture}")
    problems = [f"console: {text}" for text in lab.console_errors(page)]
    if importlib.util.find_spec("axe_playwright_python") is not None:
        problems += [f"axe: {found.rule} ({found.impact}): {found.elements[0]}" for found in lab.violations(page)]
    for problem in problems:
        print(f"  {problem}")
    return said == "all cells ran" and not problems


if __name__ == "__main__":
    sys.exit(main())
