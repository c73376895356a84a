"""Programs and packages: found, and asked for their version.

A program that is there may still not run (a missing library, another machine's code), so each is started once with
``--version``, all at the same time, with a common deadline. Packages are looked up without importing them, except
libseccomp's binding, which is used to compile the default filter.

Leaves out: whether a version is new enough.
See: Python's importlib.metadata.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from dataclasses import dataclass

from labkit.doctor.answers import Answer, limited, no, yes
from labkit.doctor.features import PACKAGES, PROGRAMS
from labkit.errors import FeatureMissing
from labkit.isolation.seccomp import compile_filter, default_profile

__all__ = ["ProgramCheck", "check_libseccomp", "check_packages"]

#: Programs that say who they are in another way than by --version; None: not started at all.
_ASK: dict[str, tuple[str, ...] | None] = {"busybox": (), "newuidmap": None}
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_DOCKER_SOCKET = "/var/run/docker.sock"


@dataclass(slots=True)
class _Asked:
    path: str
    process: subprocess.Popen[bytes] | None


class ProgramCheck:
    """All programs of the course, started at once; `collect` waits for them; a context manager that ends the rest."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked | None] = {name: _ask(name) for name in PROGRAMS}

    def collect(self, deadline_s: float) -> dict[str, Answer]:
        """Return the answers; what has not answered when the monotonic clock reads ``deadline_s`` is "limited"."""
        return {name: _judge(name, asked, deadline_s) for name, asked in self._asked.items()}

    def __enter__(self) -> ProgramCheck:
        return self

    def __exit__(self, *_: object) -> None:
        for asked in self._asked.values():
            if asked is not None and asked.process is not None:
                _end(asked.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Some are shell scripts that start the real program: the whole session goes. What holds the pipe is not waited for.
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _ask(name: str) -> _Asked | None:
    path = shutil.which(name, path=_search_path())
    if path is None:
        return None
    words = _ASK.get(name, ("--version",))
    if words is None:
        return _Asked(path, None)
    try:
        process = subprocess.Popen(
            [path, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # The probes come first: some of these programs take as much CPU time as all probes together.
        os.setpriority(os.PRIO_PGRP, process.pid, 10)
    except OSError:
        return _Asked(path, None)
    return _Asked(path, process)


def _search_path() -> str:
    # Debian keeps runc and others in /usr/sbin, which is not on an ordinary user's PATH.
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _judge(name: str, asked: _Asked | None, deadline_s: float) -> Answer:
    purpose, package = PROGRAMS[name]
    if asked is None:
        return no(purpose, rule=f"missing program: {name}", remedy=f"sudo apt-get install {package}")
    if name == "newuidmap":
        return _judge_set_uid(asked.path)
    broken = f"sudo apt-get install --reinstall {package}"
    if asked.process is None:
        return no(purpose, rule=f"{asked.path} cannot be started", remedy=broken)
    try:
        output, _ = asked.process.communicate(timeout=max(0.01, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        return limited(
            purpose, rule=f"{asked.path} did not answer in time", remedy="Ask again: the first start reads the disk."
        )
    if asked.process.returncode != 0:
        return no(purpose, rule=f"{asked.path} ended with status {asked.process.returncode}", remedy=broken)
    found = _VERSION.search(output.decode(errors="replace").partition("\n")[0])
    version = found.group() if found else "version unknown"
    return yes(f"{version}; {_docker_daemon()}" if name == "docker" else f"{version}; {purpose}")


def _judge_set_uid(path: str) -> Answer:
    if os.stat(path).st_mode & stat.S_ISUID or "security.capability" in os.listxattr(path):
        return yes(path)
    return limited(
        path, rule=f"{path} is not set-uid root, so it gains nothing", remedy="sudo apt-get install --reinstall uidmap"
    )


def _docker_daemon() -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0.1)
        try:
            client.connect(_DOCKER_SOCKET)
        except OSError:
            return "client only, no daemon answers; labkit's engine takes its place"
    return "a daemon answers"


def check_packages() -> dict[str, Answer]:
    """Return for each package of the course whether it is installed here."""
    answers = {}
    for name in PACKAGES:
        try:
            answers[f"package {name}"] = yes(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            answers[f"package {name}"] = no(
                "", rule=f"missing package: {name}", remedy=f"make setup, or pip install {name}"
            )
    return answers


def check_libseccomp() -> Answer:
    """Compile the default filter."""
    try:
        program = compile_filter(default_profile())
    except FeatureMissing as error:
        rule = str(error).removesuffix(error.remedy).strip().removesuffix(".")
        return no("containers would run without a filter", rule=rule, remedy=error.remedy)
    return yes(f"the default filter has {len(program) // 8} instructions")
