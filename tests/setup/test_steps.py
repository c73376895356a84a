"""The steps: nothing twice, everything again when its input changes, and a sentence for what cannot be done.

Making the environment and pip are replaced by fakes that note that they were called: test_venv and `make test` itself run
the real ones.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import FeatureMissing
from labkit.setup import command, parts, steps, venv
from labkit.setup.progress import Finished, Progress, Step
from tests.setup.conftest import Machine
from tests.support import in_child, requires


class Recorder:
    """Stands for the environment and pip: keeps what was asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.version = ""
        self.fails = False
        self.has_machines = True
        self.machines = Finished(0, ())
        monkeypatch.setattr(venv, "describe", lambda folder: self.version)
        monkeypatch.setattr(venv, "has_ensurepip", lambda: True)
        monkeypatch.setattr(venv, "make", self.make)
        monkeypatch.setattr(Step, "run", self.pip)
        monkeypatch.setattr(parts, "missing", lambda wanted: [])
        monkeypatch.setattr(parts, "has_machines", lambda: self.has_machines)
        monkeypatch.setattr(parts, "has_distribution", lambda: True)
        monkeypatch.setattr(Step, "execute", self.execute(Step.execute))

    def make(self, folder: Path, step: Step) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.version = self.version or "3.12.1"
        self.done.append("make")

    def execute(self, real: Callable[..., Finished]) -> Callable[..., Finished]:
        def execute(step: Step, command: Sequence[str], **keywords: Any) -> Finished:
            if command[-2:] != ["setup", "vm"]:
                return real(step, command, **keywords)
            self.done.append("machines")
            return self.machines

        return execute

    def pip(self, words: list[str], **_: object) -> None:
        if self.fails:
            raise FeatureMissing("pip could not install the packages.")
        self.done.append(f"pip {words[-1]}")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> Recorder:
    """Put the fakes in place."""
    return Recorder(monkeypatch)


def set_up(checkout: Path, *, dev: bool = False, again: bool = False) -> str:
    """Run set-up once and return what it printed."""
    out = io.StringIO()
    worked = steps.run(steps.Plan(checkout, dev=dev), Progress(0, out=out), again=again)
    assert worked == bool(out.getvalue())
    return out.getvalue()


def test_the_second_run_does_and_prints_nothing(checkout: Path, recorder: Recorder) -> None:
    first = set_up(checkout)
    assert [line.split(" …")[0] for line in first.splitlines()] == [
        "[1/5] system parts", "[2/5] virtual environment", "[3/5] packages", "[4/5] kernelspec", "[5/5] virtual machines",
    ]  # fmt: skip
    assert recorder.done == ["make", "pip ."]
    assert set_up(checkout) == ""
    assert recorder.done == ["make", "pip ."]


def test_a_changed_pyproject_runs_pip_and_leaves_the_environment(checkout: Path, recorder: Recorder) -> None:
    set_up(checkout)
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert "virtual environment … already done" in set_up(checkout)
    assert recorder.done == ["make", "pip .", "pip ."]


def test_another_python_in_the_environment_runs_pip(checkout: Path, recorder: Recorder) -> None:
    set_up(checkout)
    recorder.version = "3.13.0"
    set_up(checkout)
    assert recorder.done[2:] == ["pip ."]


def test_a_broken_environment_is_made_anew_with_its_packages_and_kernelspec(checkout: Path, recorder: Recorder) -> None:
    set_up(checkout)
    recorder.version = ""
    set_up(checkout)
    assert recorder.done[2:] == ["make", "pip ."]
    assert (checkout / ".venv/share/jupyter/kernels/labkit/kernel.json").is_file()


def test_what_tests_need_is_added_once_and_stays(checkout: Path, recorder: Recorder) -> None:
    set_up(checkout)
    set_up(checkout, dev=True)
    assert set_up(checkout) == ""
    assert set_up(checkout, dev=True) == ""
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    set_up(checkout)
    assert recorder.done == ["make", "pip .", "pip .[dev]", "pip .[dev]"]


def test_after_a_pip_that_failed_the_next_run_goes_on_from_there(checkout: Path, recorder: Recorder) -> None:
    recorder.fails = True
    with pytest.raises(FeatureMissing):
        set_up(checkout)
    recorder.fails = False
    set_up(checkout)
    assert recorder.done == ["make", "pip ."]


def test_again_repeats_every_step(checkout: Path, recorder: Recorder) -> None:
    set_up(checkout)
    set_up(checkout, again=True)
    assert recorder.done == ["make", "pip .", "make", "pip .", "machines"]


def test_virtual_machines_that_cannot_be_had_are_a_sentence_and_tried_again_the_next_day(
    checkout: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.has_machines = False
    recorder.machines = Finished(1, ("[1/3] QEMU … not to be had", "labkit: There is no QEMU on this machine."))
    told = set_up(checkout)
    assert told.splitlines()[-1].strip() == "There is no QEMU on this machine."
    assert recorder.done == ["make", "pip .", "machines"]
    assert set_up(checkout) == ""
    monkeypatch.setattr(steps, "today", lambda: "2999-12-31")
    assert "There is no QEMU" in set_up(checkout)
    recorder.has_machines = True
    assert set_up(checkout) == ""


def test_a_kernelspec_that_somebody_changed_is_written_again(checkout: Path, recorder: Recorder) -> None:
    set_up(checkout)
    path = checkout / ".venv/share/jupyter/kernels/labkit/kernel.json"
    good = path.read_text()
    path.write_text("{}")
    set_up(checkout)
    assert path.read_text() == good
    assert recorder.done == ["make", "pip ."]


def _lacking(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    lacking = [part for part in parts.PARTS if part.name in names]
    monkeypatch.setattr(parts, "missing", lambda wanted: [part for part in wanted if part in lacking])


def test_a_missing_part_is_one_sentence_with_the_remedy_and_no_failure(
    checkout: Path, recorder: Recorder, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacking(monkeypatch, "newuidmap")
    machine.add("dnf", "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    notes = [line.strip() for line in set_up(checkout).splitlines() if "newuidmap" in line]
    assert notes == [
        "newuidmap is missing (ranges of user ids in containers made without root): sudo dnf install shadow-utils"
    ]
    assert set_up(checkout) == ""


def test_without_any_package_manager_the_package_is_named(
    checkout: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacking(monkeypatch, "newuidmap")
    assert "install it with the system's package manager (Debian calls it uidmap)" in set_up(checkout)


def test_a_part_that_root_could_not_get_is_tried_again_the_next_day(
    checkout: Path, recorder: Recorder, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacking(monkeypatch, "crun")
    machine.add("apt-get", 'echo "E: Temporary failure resolving" >&2; exit 100')
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "crun is missing (a peer in the start-up race; Temporary failure resolving): apt-get install crun" in set_up(
        checkout
    )
    assert set_up(checkout) == ""
    monkeypatch.setattr(steps, "today", lambda: "2999-12-31")
    assert "crun is missing" in set_up(checkout)


def test_browser_and_witnesses_come_only_for_tests(checkout: Path) -> None:
    assert {part.name for part in steps.Plan(checkout).parts}.isdisjoint({"chromium", "strace"})
    assert {part.name for part in steps.Plan(checkout, dev=True).parts} >= {"chromium", "strace"}


def test_two_set_ups_of_one_checkout_wait_for_each_other(checkout: Path, recorder: Recorder) -> None:
    hold = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), 2); print(flush=True); input()"
    command_line = [sys.executable, "-c", hold, str(checkout)]
    with subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        out = Until("waiting for it", holder)
        steps.run(steps.Plan(checkout), Progress(0, out=out), again=False)
    assert out.getvalue().startswith("labkit: another set-up of this checkout is running; waiting for it\n[1/5]")


class Until(io.StringIO):
    """Ends a process as soon as ``word`` is printed."""

    def __init__(self, word: str, process: subprocess.Popen[bytes]) -> None:
        super().__init__()
        self.word, self.process = word, process

    def write(self, text: str) -> int:
        if self.word in text and self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()
        return super().write(text)


@requires("root")
def test_a_checkout_of_somebody_else_is_one_sentence(checkout: Path) -> None:
    for path in (checkout, *checkout.parents):
        if path.stat().st_mode & 0o007 != 0o007:
            path.chmod(path.stat().st_mode | 0o005)
        if path.name.startswith("pytest-of-"):
            break

    def as_nobody(root: str) -> tuple[int, str]:
        import contextlib
        import io
        import os
        from pathlib import Path

        from labkit.setup import command, steps, venv

        steps.checkout_folder = lambda: Path(root)
        venv.has_ensurepip = lambda: True  # nobody may not be able to run the Python that runs this
        os.environ.update(HOME="/nonexistent", PATH="/nonexistent", XDG_CACHE_HOME="/nonexistent")
        os.chdir("/")
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            status = command.main([])
        return status, told.getvalue()

    status, told = in_child(as_nobody, str(checkout))
    assert status == 1
    assert told.splitlines()[-1].startswith(f"labkit: {checkout} belongs to root and nobody may not write there. Clone")
    assert "Traceback" not in told


def test_the_command_says_in_one_line_that_all_is_there(
    checkout: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(steps, "checkout_folder", lambda: checkout)
    assert command.main([]) == 0
    capsys.readouterr()
    started_s = time.monotonic()
    assert command.main([]) == 0
    assert time.monotonic() - started_s < 1.0
    assert capsys.readouterr().err == "labkit: set-up is complete.\n"


def test_a_full_disk_is_one_sentence(
    checkout: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(steps, "checkout_folder", lambda: checkout)
    monkeypatch.setattr(venv, "make", full)
    assert command.main([]) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1] == "labkit: set-up cannot go on: /somewhere: No space left on device."
    )
