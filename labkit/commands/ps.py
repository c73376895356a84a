"""``labkit ps``: the containers of this user that run now, whichever program started them.

Each launcher keeps a folder with one small file a container (`labkit.container.runfolder`); what a file says is checked against
``/proc``, because the container may have ended since. The memory is that of the container's cgroup, or of its first process where
the machine keeps none.

Leaves out: containers of other users, containers that have ended.
See: docker-ps(1), ps(1).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from labkit.container import runfolder
from labkit.isolation.cgroups import read_layout
from labkit.linux.proc import read_cgroup, read_status
from labkit.units import format_bytes

__all__ = ["Running", "add_arguments", "list_running", "run"]

_MEMORY_FILES = ("memory.current", "memory.usage_in_bytes")
_COLUMNS = ("NAME", "PID", "AGE", "MEMORY", "COMMAND")


@dataclass(frozen=True, slots=True)
class Running:
    """One container that runs; ``pid`` as the host sees it."""

    name: str
    pid: int
    age_s: float
    memory_bytes: int
    command: tuple[str, ...]
    hostname: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit ps``."""
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table; return 0."""
    found = list_running()
    if args.json:
        json.dump([asdict(item) for item in found], sys.stdout, indent=2)
        print()
        return 0
    rows = [_COLUMNS, *(_cells(item) for item in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
    return 0


def list_running(base: str | None = None) -> list[Running]:
    """Return this user's running containers, oldest first."""
    folders = runfolder.live_folders(base or runfolder.base_folder())
    found = [item for folder in folders for item in _entries(Path(folder))]
    return sorted(found, key=lambda item: -item.age_s)


def _entries(folder: Path) -> Iterator[Running]:
    for path in folder.glob("*.json"):
        try:
            entry = json.loads(path.read_text())
            pid = int(entry["pid"])
            memory_bytes = _memory_bytes(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        age_s = max(0.0, time.time() - entry["started_s"])
        yield Running(entry["name"], pid, age_s, memory_bytes, tuple(entry["command"]), entry["hostname"])


def _memory_bytes(pid: int) -> int:
    hierarchy = read_layout().hierarchy_of("memory")
    lines = read_cgroup(pid)
    if hierarchy is not None:
        place = next((line.path for line in lines if "memory" in line.controllers or not line.controllers), "")
        for name in _MEMORY_FILES if "labkit-" in place else ():
            try:
                return int(Path(f"{hierarchy.mount}{place}/{name}").read_text())
            except FileNotFoundError:
                continue
    return read_status(pid).resident_bytes or 0


def _cells(item: Running) -> tuple[str, ...]:
    # Names and arguments are anybody's text: unprintable characters must not reach the reader's terminal.
    command = shlex.join(item.command)
    shown = "".join(letter if letter.isprintable() else "?" for letter in command)
    return item.name, str(item.pid), _age(item.age_s), format_bytes(item.memory_bytes), shown


def _age(age_s: float) -> str:
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if age_s >= seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return f"{age_s:.0f} s"
