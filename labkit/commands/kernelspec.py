"""``labkit kernelspec``: how JupyterLab starts the lessons' kernel; install it, list it, remove it.

It is written into the environment that ``labkit`` belongs to, which every Jupyter of that environment reads. ``make setup``
installs it; a Jupyter elsewhere needs ``--prefix``.

See: `labkit.setup.kernelspec`, `labkit.sandbox.provisioner`; the Jupyter client's "Kernel specs".
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.sandbox.level import find_level
from labkit.sandbox.policy import load
from labkit.setup import kernelspec

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be done."""
    parser.add_argument("action", choices=("install", "remove", "list"), help="what to do")
    parser.add_argument(
        "--prefix", type=Path, default=Path(sys.prefix), metavar="FOLDER", help="the environment (default: this one)"
    )


def run(args: argparse.Namespace) -> int:
    """Do it; return 1 if there is nothing to list or to remove. Raises: InvalidSpec for a wrong policy, OSError."""
    folder = kernelspec.folder_in(args.prefix)
    if args.action == "install":
        try:
            print(f"installed: {kernelspec.install(args.prefix, Path(sys.executable))}")
        except PermissionError as error:
            raise FeatureMissing(
                f"This user may not write to {error.filename}.",
                remedy="Name an environment of your own with --prefix FOLDER.",
            ) from error
        return 0
    if not (folder / "kernel.json").is_file():
        print(
            f"labkit: there is no kernelspec of labkit's in {args.prefix}: `labkit kernelspec install` puts it there."
        )
        return 1
    if args.action == "remove":
        kernelspec.remove(args.prefix)
        print(f"removed: {folder}")
        return 0
    _list(folder)
    return 0


def _list(folder: Path) -> None:
    spec = json.loads((folder / "kernel.json").read_text())
    policy = load()
    level = find_level(policy.backend)
    print(f"{folder.name:<10} {spec['display_name']}\n{'folder':<10} {folder}\n{'Python':<10} {spec['argv'][0]}")
    print(
        f"{'sandbox':<10} {level.name}{' in a virtual machine' if level.backend == 'vm' else ''}{': ' if level.reasons else ''}{' '.join(level.reasons)}\n{'policy':<10} {policy.source}"
    )
