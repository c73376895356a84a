"""``labkit record``: take the course's measurements on this machine and keep them for machines that cannot.

Each result becomes a file with the facts of this machine. Without ``--folder`` the files are those that ship with the package, so
an author runs it on a machine that can do everything; a lesson loads them only where the machine cannot.

See: `labkit.measure.recordable`, `labkit.measure.recording`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import FeatureMissing, InvalidSpec, LabkitError
from labkit.measure.recordable import EXPERIMENTS, find_recording, lacking
from labkit.measure.recording import FOLDER, write_recording
from labkit.units import format_bytes

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit record``."""
    parser.add_argument(
        "--only", metavar="NAMES", help=f"what to record, with commas between: {', '.join(EXPERIMENTS)}"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, metavar="DIR", help="where (default: the package's own)")
    parser.add_argument("--list", action="store_true", help="say what is recorded there, and measure nothing")


def run(args: argparse.Namespace) -> int:
    """Record, one sentence a recording; return 0 if all was recorded, 1 if something could not be."""
    names = _names(args.only)
    if args.list:
        return _list(names, args.folder)
    failed = 0
    for name in names:
        try:
            print(_record(name, args.folder), flush=True)
        except LabkitError as error:
            failed += 1
            print(f"labkit: {name} is not recorded: {error}", file=sys.stderr)
    return 1 if failed else 0


def _names(only: str | None) -> Sequence[str]:
    names = list(EXPERIMENTS) if only is None else [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in EXPERIMENTS]
    if unknown or not names:
        raise InvalidSpec(f"Nothing called {', '.join(unknown)!r} is recorded: choose among {', '.join(EXPERIMENTS)}.")
    return names


def _record(name: str, folder: Path) -> str:
    """Measure, write, read back; return what was done. Raises: LabkitError where this machine cannot."""
    experiment = EXPERIMENTS[name]
    for need in experiment.needs:
        if reason := lacking(need):
            raise FeatureMissing(reason)
    began_s = time.monotonic()
    result = experiment.measure()
    try:
        path = write_recording(result, name=name, accelerator=_accelerator(), folder=folder)
    except OSError as error:
        raise LabkitError(f"{folder} cannot be written: {error.strerror}.") from error
    find_recording(name, folder=folder)
    taken_s, size = time.monotonic() - began_s, format_bytes(path.stat().st_size)
    return f"{name}: {experiment.title}, in {taken_s:.1f} s, {size} in {path.name}"


def _list(names: Sequence[str], folder: Path) -> int:
    failed = 0
    for name in names:
        try:
            found = find_recording(name, folder=folder)
            print(
                f"{name}: {EXPERIMENTS[name].title}; {found.host.date[:10]}, {found.host.machine}, labkit {found.host.labkit}"
            )
        except InvalidSpec as error:
            failed += 1
            print(f"labkit: {error}", file=sys.stderr)
    return 1 if failed else 0


def _accelerator() -> str:
    from labkit.vm.accel import accelerator

    try:
        return str(accelerator())
    except FeatureMissing:
        return "nothing: it has no QEMU"
