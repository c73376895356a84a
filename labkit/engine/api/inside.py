"""Looking into a container from outside: its processes, with ``ps``, and the changes in its layer.

See: ps(1); docker-top(1); `labkit.engine.objects.changes`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any

from labkit.engine.engine import Engine
from labkit.engine.objects.changes import Change, changes
from labkit.engine.objects.record import Container
from labkit.engine.wire.errors import ApiError, BadParameter
from labkit.setup.parts import find_program

__all__ = ["changes_of", "pids_of", "top_of"]

_MOST_WORDS = 32


def pids_of(container: Container) -> list[int]:
    """Return the pids of a running container, as the engine sees them."""
    folder = container.state.folders.get("unified") or next(iter(container.state.folders.values()), "")
    if not folder:
        return [container.state.pid]
    try:
        with open(f"{folder}/cgroup.procs") as file:
            return [int(line) for line in file]
    except OSError:
        return []


def top_of(container: Container, ps_arguments: str) -> dict[str, Any]:
    """Return what ``ps`` says of the container's processes, in columns. Raises: BadParameter for wrong arguments."""
    program = find_program("ps")
    if program is None:
        raise ApiError("the program ps (package procps) is not installed on this machine")
    try:
        words = shlex.split(ps_arguments)
    except ValueError as error:
        raise BadParameter(f"ps: {error}") from error
    if len(words) > _MOST_WORDS:
        raise BadParameter("ps: too many arguments")
    wanted = {str(pid) for pid in pids_of(container)}
    done = _run_ps(container, [str(program), *words, "-q", ",".join(wanted)])
    if done.returncode:
        done = _run_ps(container, [str(program), *words])  # its selection does not go together with theirs
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise BadParameter(f"ps: {done.stderr.strip() or 'no output'}")
    titles = lines[0].split()
    if "PID" not in titles:
        raise BadParameter("Couldn't find PID field in ps output")
    at = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return {"Titles": titles, "Processes": [row for row in rows if len(row) > at and row[at] in wanted]}


def _run_ps(container: Container, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run ``ps`` in the container's user namespace, where the ids of its processes have the names that they have inside."""
    nsenter = find_program("nsenter")
    if nsenter is not None:
        command = [str(nsenter), "--preserve-credentials", f"--user=/proc/{container.state.pid}/ns/user", *command]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=20, check=False, env={**os.environ, "LC_ALL": "C"}
    )  # fmt: skip


def changes_of(engine: Engine, container: Container) -> list[Change]:
    """Return what the container has changed."""
    lowers = engine.images.to_run(container.image_id).lowers
    targets = {point.target for point in container.mounts}
    found = changes(f"{container.folder}/rw/upper", lowers)
    return [change for change in found if change.path not in targets]
