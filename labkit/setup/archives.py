"""Packages that are only unpacked, with what they need: a program with its libraries, a kernel without its installation.

Installing a kernel package would make a new initramfs and change what the machine boots; installing needs root. Unpacking does
neither. `Archives` finds out which packages a program needs that this machine lacks (apt simulates the installation), or which
packages another one only stands for (linux-image-amd64 stands for the kernel of the day), and fetches their archives into a folder that
is removed at the end. It uses the machine's package lists, and where these are missing or too old, private ones.

Leaves out: maintainer scripts; anything but Debian's archives.
See: apt-get(8) (--simulate), apt-cache(8) (depends), dpkg-deb(1) (--fsys-tarfile).
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from labkit.errors import FeatureMissing
from labkit.setup.apt import QUIET, private_options, run_or_reason
from labkit.setup.progress import Step

__all__ = ["Archives", "archives", "files_of", "unpack"]

_DEPENDENCIES_ONLY = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")


class Archives:
    """A folder for archives, and the package lists to find them in; made by `archives`."""

    def __init__(self, work: Path, step: Step) -> None:
        self.work = work
        self.step = step
        self._options: list[str] = []

    def closure(self, package: str) -> list[str]:
        """Return ``package`` and everything that it needs and this machine lacks. Raises: FeatureMissing if apt has none."""
        self._find(package)
        words = ["apt-get", "-qq", "--simulate", "--no-install-recommends", "install", package]
        done = self._run(words)
        if done.returncode:
            said = " ".join(done.stderr.split()).removeprefix("E: ").rstrip(".")
            raise FeatureMissing(f"apt-get cannot say what {package} needs: {said}.")
        return list(dict.fromkeys([package, *re.findall(r"^Inst (\S+) ", done.stdout, re.MULTILINE)]))

    def system(self, packages: Sequence[str]) -> list[str]:
        """Return ``packages``, as far as apt knows them, and all that they need on a machine that has nothing yet.

        Raises: FeatureMissing.
        """
        nothing = self.work / "nothing"
        nothing.touch()
        self._find("base-files")  # else there are no lists, and private ones are fetched
        shown = self._run(["apt-cache", "show", *(name for name in packages if not name.startswith("?"))]).stdout
        there = re.findall(r"^Package: (\S+)$", shown, re.MULTILINE)
        known = [name for name in packages if name.startswith("?") or name in there]
        # ForceEssential: apt would take itself for essential; other caches: the machine's tell what the machine has.
        options = (
            f"-oDir::State::status={nothing}", "-opkgCacheGen::ForceEssential=none",
            "-oDir::Cache::pkgcache=", "-oDir::Cache::srcpkgcache=",
        )  # fmt: skip
        words = ("-qq", "--simulate", "--no-install-recommends", "install", *known)
        done = self._run(["apt-get", *words], later=options)
        if done.returncode:
            raise FeatureMissing(f"apt-get cannot put a system together: {' '.join(done.stderr.split())}.")
        return re.findall(r"^Inst (\S+) ", done.stdout, re.MULTILINE)

    def related(self, package: str, pattern: str) -> list[str]:
        """Return the packages that ``package`` depends on, however indirectly, and whose names match ``pattern``."""
        self._find(package)
        only = (f"--no-{kind}" for kind in _DEPENDENCIES_ONLY)
        listed = self._ask("apt-cache", "depends", "--recurse", *only, package)
        return [name for name in dict.fromkeys(listed.split()) if re.fullmatch(pattern, name)]

    def fetch(self, find: Callable[[], list[str]]) -> list[Path]:
        """Fetch the packages that ``find`` names; a second time, with new lists, if the first fails. Raises: FeatureMissing."""
        packages = find()
        reason = self._download(packages)
        if reason and not self._options:
            # Lists name versions, and the archive keeps only the newest: with old lists nothing is found.
            self._make_lists()
            packages = find()
            reason = self._download(packages)
        if reason:
            raise FeatureMissing(
                f"{packages[0]} could not be fetched: {reason}.", remedy="Check the network, then try again."
            )
        return sorted(self.work.glob("*.deb"))

    def _find(self, package: str) -> None:
        if self._ask("apt-cache", "show", package):
            return
        if not self._options:
            self._make_lists()
        if not self._ask("apt-cache", "show", package):
            raise FeatureMissing(f"No package source of this machine has {package}.")

    def _make_lists(self) -> None:
        self.step.show("apt-get update (private lists)")
        options = private_options(self.work)
        # Without Error-Mode apt-get takes unreachable sources for a warning, and every package for unknown.
        if reason := run_or_reason(["apt-get", *options, "-oAPT::Update::Error-Mode=any", "update"], self.step):
            raise FeatureMissing(
                f"The package lists could not be fetched: {reason}.", remedy="Check the network, then try again."
            )
        self._options = options

    def _download(self, packages: Sequence[str]) -> str:
        # apt-get writes the archives into its working folder and has no option for another.
        go_there = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(self.work)]
        return run_or_reason([*go_there, "apt-get", *self._options, "download", *packages], self.step)

    def _ask(self, *command: str) -> str:
        """Return what one of apt's programs prints; nothing if it fails."""
        done = self._run(command)
        return "" if done.returncode else done.stdout

    def _run(self, command: Sequence[str], *, later: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command[0], *self._options, *later, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, env={**os.environ, **QUIET},
        )  # fmt: skip


@contextmanager
def archives(step: Step) -> Iterator[Archives]:
    """Give an empty `Archives`; its folder and everything in it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="labkit-apt-") as work:
        yield Archives(Path(work), step)


def unpack(archive: Path, folder: Path, place_of: Callable[[PurePosixPath], PurePosixPath | None]) -> None:
    """Unpack the plain files of a ``.deb`` into ``folder``, each where ``place_of`` its path says; None leaves it out.

    The archive is read as a stream, so what is left out never reaches the disk. Raises: FeatureMissing if it is damaged, OSError.
    """
    with files_of(archive) as tar:
        for member in tar:
            place = place_of(PurePosixPath(member.name)) if member.isfile() else None
            content = None if place is None else tar.extractfile(member)
            if place is not None and content is not None:
                target = folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())


@contextmanager
def files_of(archive: Path) -> Iterator[tarfile.TarFile]:
    """Give the files of a ``.deb`` as a stream that is read once. Raises: FeatureMissing if it is damaged."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                yield tar
        except tarfile.TarError as error:
            raise FeatureMissing(f"{archive.name} is damaged: {error}.", remedy="Try again.") from error
        finally:
            if process.stdout is not None:
                process.stdout.close()
