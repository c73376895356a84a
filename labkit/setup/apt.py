"""Debian's packages: installed for the whole machine as root, or unpacked into a folder of one's own without.

``apt-get install`` changes the machine and needs root. ``apt-get download`` only fetches an archive, and
``dpkg-deb --extract`` only unpacks one; neither looks at who runs it. What needs no place of its own in the system, such as
one static program, therefore works from a cache folder. Where the machine's package lists are missing (a container
image, Binder), ``apt-get update`` makes lists in a private folder first.

Leaves out: dependencies of an unpacked package (`labkit.setup.archives` has them), and its maintainer scripts.
See: apt-get(8), apt.conf(5) (Dir::State, Dir::Cache), dpkg-deb(1).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from labkit.setup.progress import Step
from labkit.setup.services import without_services

__all__ = ["QUIET", "can_download", "can_install", "download", "install", "private_options", "run_or_reason"]

#: The environment in which apt's programs ask nothing.
QUIET = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",
    "APT_LISTCHANGES_FRONTEND": "none",
    "LC_ALL": "C.UTF-8",
}
# --no-remove: busybox-static conflicts with busybox; a course has no business removing a package of the machine's owner.
# Lock::Timeout: a new Ubuntu updates itself in the first minutes and holds the lock.
_INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "--no-remove", "-o", "DPkg::Lock::Timeout=120")


def can_install(*, euid: int) -> bool:
    """Say whether packages can be installed for the whole machine."""
    return euid == 0 and shutil.which("apt-get") is not None


def can_download() -> bool:
    """Say whether packages can be fetched and unpacked without root."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def install(packages: Sequence[str], step: Step) -> dict[str, str]:
    """Install ``packages`` as root, without any service of theirs, and return the reason for each one that could not be.

    A single name that apt does not know, or cannot install without removing something, makes it refuse all of them; so
    what it refuses is sorted out first, and where the installation itself fails each package is tried alone.
    """
    if _refusal(packages):
        step.show("apt-get update")
        run_or_reason(["apt-get", "update", "-o", "DPkg::Lock::Timeout=120"], step)
    reasons = {package: _refusal([package]) for package in packages} if _refusal(packages) else {}
    wanted = [package for package in packages if not reasons.get(package)]
    if wanted:
        step.announce(f"apt-get install {' '.join(wanted)} ({_download_bytes(wanted) / 1e6:.1f} MB to download)")
        with without_services():
            if run_or_reason([*_INSTALL, *wanted], step):
                reasons |= {package: run_or_reason([*_INSTALL, package], step) for package in wanted}
    return {package: reason for package, reason in reasons.items() if reason}


def download(packages: Sequence[str], folder: Path, step: Step) -> dict[str, str]:
    """Fetch ``packages`` and unpack them into ``folder`` as an ordinary user; return the reason for each that could not be."""
    with tempfile.TemporaryDirectory(prefix="labkit-apt-") as work_name:
        work = Path(work_name)
        reasons = {package: _fetch(package, work, [], step) for package in packages}
        lacking = [package for package, reason in reasons.items() if reason]
        if lacking:
            options = private_options(work)
            step.show("apt-get update (private lists)")
            # Without Error-Mode apt-get takes unreachable sources for a warning, and every package for unknown.
            no_lists = run_or_reason(["apt-get", *options, "-oAPT::Update::Error-Mode=any", "update"], step)
            reasons |= {package: no_lists or _fetch(package, work, options, step) for package in lacking}
        folder.mkdir(parents=True, exist_ok=True)
        for archive in work.glob("*.deb"):
            reasons[archive.name.partition("_")[0]] = run_or_reason(
                ["dpkg-deb", "--extract", str(archive), str(folder)], step
            )
    return {package: reason for package, reason in reasons.items() if reason}


def _fetch(package: str, work: Path, options: Sequence[str], step: Step) -> str:
    # apt-get writes the archive into its working folder and has no option for another.
    return run_or_reason(
        ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(work), "apt-get", *options, "download", package], step
    )


def private_options(work: Path) -> list[str]:
    """Return the options that point apt's state, cache and lists below ``work``; the sources stay the machine's."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True, exist_ok=True)
    places: Mapping[str, str] = {"Dir::State": "state", "Dir::State::lists": "state/lists", "Dir::Cache": "cache"}
    return [f"-o{name}={work / place}" for name, place in places.items()] + [
        "-oDir::State::status=/var/lib/dpkg/status"
    ]


def run_or_reason(command: Sequence[str], step: Step) -> str:
    """Run ``command``; return an empty string, or the first error that it printed."""
    finished = step.execute(command, env=QUIET)
    return _first_error(finished.lines) or f"status {finished.status}" if finished.status else ""


def _first_error(lines: Sequence[str]) -> str:
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    return " ".join(next(iter([*errors, *reversed(lines)]), "").split()).rstrip(".")


def _refusal(packages: Sequence[str]) -> str:
    """Return why apt would not install ``packages``, or an empty string; a fresh container image knows none at all."""
    result = _simulate(packages)
    return _first_error(result.stderr.splitlines()) or "apt-get refuses" if result.returncode else ""


def _download_bytes(packages: Sequence[str]) -> int:
    sizes = re.findall(r"^'\S+' \S+ (\d+) ", _simulate(packages).stdout, re.MULTILINE)
    return sum(int(size_bytes) for size_bytes in sizes)


def _simulate(packages: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Let apt print the archives that an installation would fetch: one line each, with the size in bytes."""
    command = [*_INSTALL, "-qq", "--print-uris", *packages]
    environment = {**os.environ, **QUIET}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
