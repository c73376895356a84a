"""The steps of set-up in their order, each with the question "is it done?" that makes the second run quick.

::

    system parts         apt-get install as root; unpacked into the cache, or named with a remedy, without
    virtual environment  .venv/, by the best way this machine has to put pip into it
    packages             pip install of this checkout (editable) and what pyproject.toml names
    kernelspec           how JupyterLab starts the lessons' kernel, inside .venv/
    virtual machines     QEMU and guest kernels (`labkit.vm.setup`, which needs the packages)

Only a missing environment or missing packages make set-up fail: without a part of the system some lessons show less, and say so.

Leaves out: removing what an older version of the course needed.
See: labkit.setup.stamp for how a finished step is recognised, flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from labkit.errors import FeatureMissing
from labkit.setup import apt, kernelspec, parts, venv
from labkit.setup.progress import Progress, Step
from labkit.setup.stamp import Stamps, key_of

__all__ = ["Plan", "Task", "checkout_folder", "run", "today"]

_PIP_INSTALL = ("-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off")
_PIP_REMEDY = "Its own words stand above; check the network, then run `make setup` again: it goes on from there."
_MANAGERS = {
    "apt-get": "apt-get install",
    "dnf": "dnf install",
    "pacman": "pacman -S",
    "zypper": "zypper install",
    "apk": "apk add",
}


@dataclass(frozen=True, slots=True)
class Task:
    """One step: its title, whether it is done already, and how to do it."""

    title: str
    is_done: Callable[[], bool]
    carry_out: Callable[[Step], None]


def checkout_folder() -> Path:
    """Return the folder of the checkout that this code lies in. Raises: FeatureMissing when it lies in none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise FeatureMissing(
            f"{root} is no checkout of labkit.",
            remedy="Set-up works on a clone of the repository: run `make setup` there.",
        )
    return root


def run(plan: Plan, progress: Progress, *, again: bool) -> bool:
    """Carry out the steps of ``plan`` that are not done (all of them if ``again``); return whether there were any.

    Raises: FeatureMissing for an environment or packages that cannot be had here.
    """
    tasks = plan.tasks()
    progress.total = len(tasks)
    with _alone(plan.root, lambda: progress.say("another set-up of this checkout is running; waiting for it")):
        if not again and all(task.is_done() for task in tasks):
            return False
        for task in tasks:
            with progress.step(task.title) as step:
                if again or not task.is_done():
                    task.carry_out(step)
                else:
                    step.result = "already done"
    return True


def today() -> str:
    """Return the date that the stamp of parts which failed to come is good for."""
    return date.today().isoformat()


@contextmanager
def _alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of ``folder``: two set-ups at once would build the environment on top of each other.

    The lock goes with the process, however it ends; ``waiting`` is called when another one holds it.
    """
    lock_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock_fd)


class Plan:
    """What is to be set up for one checkout: ``dev`` adds what tests and authors need, ``here`` keeps the running Python."""

    def __init__(self, root: Path, *, dev: bool = False, here: bool = False) -> None:
        self.root = root
        self.here = here
        self.folder = Path(sys.prefix) if here else root / ".venv"
        self.python = Path(sys.executable) if here else venv.python_of(self.folder)
        self.stamps = Stamps(self.folder / "labkit-setup.json")
        self.dev = dev or self.stamps.get("level") == "dev"
        self.parts = [part for part in parts.PARTS if self.dev or not part.for_tests]

    def tasks(self) -> list[Task]:
        """Return the steps in their order."""
        own = [
            Task("virtual environment", lambda: venv.describe(self.folder) != "", self._make_environment),
            Task("packages", lambda: self.stamps.get("packages") == self._packages_key(), self._install_packages),
        ]
        return [
            Task("system parts", self._parts_are_done, self._install_parts),
            *([] if self.here else own),
            Task("kernelspec", self._kernelspec_is_done, self._install_kernelspec),
            Task("virtual machines", self._machines_are_done, self._set_up_machines),
        ]

    def _parts_are_done(self) -> bool:
        lacking = parts.missing(self.parts)
        return not self._apt_packages() and (not lacking or self._tried().get("parts") in self._parts_keys(lacking))

    def _install_parts(self, step: Step) -> None:
        lacking = parts.missing(self.parts)
        packages, reasons = self._apt_packages(), dict[str, str]()
        if apt.can_install(euid=os.geteuid()):
            packages += [part.packages["apt-get"] for part in lacking]
            reasons = apt.install(packages, step) if packages else {}
        lacking = parts.missing(self.parts)
        portable = [part.packages["apt-get"] for part in lacking if part.portable]
        if portable and apt.can_download():
            step.announce(f"{', '.join(portable)} without root")
            try:
                reasons |= apt.download(portable, parts.cache_folder() / "parts", step)
            except OSError as error:
                reasons |= dict.fromkeys(portable, f"{error.filename}: {error.strerror}")
        lacking = parts.missing(self.parts)
        step.notes += [_explain(part, reasons.get(part.packages["apt-get"], "")) for part in lacking]
        if not lacking and not packages:
            step.result = "nothing missing"
        self._remember_tried(lacking, failed=bool(reasons))

    def _apt_packages(self) -> list[str]:
        """Return the packages that root must install before an environment can be made, whatever was tried before."""
        makes_one = not self.here and not venv.describe(self.folder) and not venv.has_ensurepip()
        package = venv.venv_package() if makes_one and apt.can_install(euid=os.geteuid()) else ""
        return [package] if package else []

    def _tried(self) -> Stamps:
        return Stamps(parts.cache_folder() / "setup.json")

    def _parts_keys(self, lacking: list[parts.Part]) -> tuple[str, str]:
        """Return the stamp for parts that cannot be had here, and the one, good for today, for parts that failed to come."""
        names = [f"{part.name} {part.portable}" for part in lacking]
        return key_of(str(os.geteuid()), *names), key_of(str(os.geteuid()), today(), *names)

    def _remember_tried(self, lacking: list[parts.Part], *, failed: bool) -> None:
        try:
            parts.cache_folder().mkdir(parents=True, exist_ok=True)
            self._tried().set("parts", self._parts_keys(lacking)[failed])
        except OSError:
            # A home that cannot be written only costs the next run the same look.
            return

    def _make_environment(self, step: Step) -> None:
        self._check_writable()
        venv.make(self.folder, step)
        self.stamps = Stamps(self.folder / "labkit-setup.json")

    def _packages_key(self) -> str:
        pyproject = (self.root / "pyproject.toml").read_bytes()
        return key_of(pyproject, venv.describe(self.folder), "dev" if self.dev else "lab")

    def _install_packages(self, step: Step) -> None:
        self._check_writable()
        what = ".[dev]" if self.dev else "."
        # PIP_USER in a student's settings would send the packages past the environment.
        step.run(
            [str(self.python), *_PIP_INSTALL, "--editable", what],
            what="pip could not install the packages",
            remedy=_PIP_REMEDY,
            env={"PIP_USER": "0"},
        )
        self.stamps.set("level", "dev" if self.dev else "lab")
        self.stamps.set("packages", self._packages_key())

    def _kernelspec_is_done(self) -> bool:
        path = self.folder / "share/jupyter/kernels" / kernelspec.NAME / "kernel.json"
        try:
            return bool(json.loads(path.read_text()) == kernelspec.spec(self.python))
        except (OSError, ValueError):
            return False

    def _install_kernelspec(self, step: Step) -> None:
        self._check_writable()
        kernelspec.install(self.folder, self.python)
        step.result = kernelspec.DISPLAY_NAME

    def _machines_are_done(self) -> bool:
        is_there = parts.has_machines() and (parts.has_distribution() or not self._wants_distribution())
        return is_there or self._tried().get("machines") == key_of(str(os.geteuid()), today())

    def _wants_distribution(self) -> bool:
        # The tests as an ordinary user start from an empty home each time: there it would cost a minute and show nothing new.
        return self.dev and os.geteuid() == 0

    def _set_up_machines(self, step: Step) -> None:
        """Let the environment's labkit fetch them: only with the packages it can import what unpacks kernels."""
        more = ["--distribution"] if self._wants_distribution() else []
        step.announce("QEMU and two guest kernels" + (", a disk with a distribution" if more else ""))
        finished = step.execute([str(self.python), "-m", "labkit", "setup", "vm", *more])
        step.notes += [line.removeprefix("labkit: ") for line in finished.lines if line.startswith("labkit: ")]
        if finished.status and not step.notes:
            step.notes.append(f"they are missing ({' '.join(finished.lines[-1:])}): `labkit setup vm` says more")
        if finished.status:
            with contextlib.suppress(OSError):  # a home that cannot be written only costs the next run the same look
                parts.cache_folder().mkdir(parents=True, exist_ok=True)
                self._tried().set("machines", key_of(str(os.geteuid()), today()))

    def _check_writable(self) -> None:
        """Raises: FeatureMissing when this user can write neither the environment nor the folder it goes into."""
        place = self.folder if self.folder.exists() else self.root
        if not os.access(place, os.W_OK | os.X_OK):
            raise FeatureMissing(
                f"{place} belongs to {_name(place.stat().st_uid)} and {_name(os.geteuid())} may not write there.",
                remedy="Clone the repository into a folder of your own and run `make setup` there.",
            )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _explain(part: parts.Part, reason: str) -> str:
    """Return one sentence: which part is missing, what for, why if known, and the command that would change it."""
    manager = next((name for name in _MANAGERS if shutil.which(name)), "")
    package = part.packages[manager or "apt-get"]
    sudo = "" if os.geteuid() == 0 else "sudo "
    remedy = (
        f"{sudo}{_MANAGERS[manager]} {package}"
        if manager
        else f"install it with the system's package manager (Debian calls it {package})"
    )
    return f"{part.name} is missing ({part.purpose}{'; ' + reason if reason else ''}): {remedy}"
