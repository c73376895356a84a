"""bootstrap.sh: which Python it takes, and its one sentence when there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.setup.conftest import Machine

GOOD = f'exec {sys.executable} "$@"'  # a Python of at least 3.11 with whatever it has
NO_ENSUREPIP = f'case "$2" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"'
OLD = 'case "$1" in --version) echo "Python 3.9.2";; *) exit 1;; esac'
SHIM = 'echo "pyenv: $0: command not found" >&2; exit 127'


@pytest.fixture
def clone(checkout: Path) -> Path:
    """Return a checkout whose set-up only prints which Python runs it and with which arguments."""
    (checkout / "labkit/setup/__main__.py").write_text("import os, sys\nprint('ran', os.getcwd(), *sys.argv[1:])\n")
    return checkout


def bootstrap(clone: Path, *arguments: str, where: str = "/") -> subprocess.CompletedProcess[str]:
    """Run the script from another folder, as ``make -C`` would."""
    command = ["sh", str(clone / "labkit/setup/bootstrap.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=where)


def starts(machine: Machine, name: str) -> list[str]:
    """Return the calls of a fake Python that started set-up."""
    return [call for call in machine.calls(name) if call.startswith("-m labkit.setup")]


def test_set_up_runs_in_the_checkout_with_the_arguments(clone: Path, machine: Machine) -> None:
    machine.add("python3", GOOD)
    assert bootstrap(clone, "--dev").stdout == f"ran {clone} --dev\n"


def test_a_shim_that_fails_and_a_python_that_is_too_old_are_passed_over(clone: Path, machine: Machine) -> None:
    for name, script in {"python3.14": SHIM, "python3.13": SHIM, "python3.12": OLD, "python3": GOOD}.items():
        machine.add(name, script)
    assert bootstrap(clone).returncode == 0
    assert len(starts(machine, "python3")) == 1
    assert not starts(machine, "python3.12")


def test_a_python_that_can_make_an_environment_goes_before_a_newer_one(clone: Path, machine: Machine) -> None:
    machine.add("python3.13", NO_ENSUREPIP)
    machine.add("python3", GOOD)
    bootstrap(clone)
    assert starts(machine, "python3")
    assert not starts(machine, "python3.13")


def test_one_that_cannot_is_still_better_than_none(clone: Path, machine: Machine) -> None:
    machine.add("python3", NO_ENSUREPIP)
    bootstrap(clone)
    assert starts(machine, "python3")


def test_the_environment_of_the_checkout_goes_first(clone: Path, machine: Machine) -> None:
    machine.add("python3", GOOD)
    (clone / ".venv/bin").mkdir(parents=True)
    machine.add("venv-python", GOOD)
    shutil.copy(machine.bin / "venv-python", clone / ".venv/bin/python")
    bootstrap(clone)
    assert starts(machine, "venv-python")
    assert not starts(machine, "python3")


def test_pythons_that_uv_keeps_are_found(clone: Path, machine: Machine) -> None:
    machine.add("hidden", GOOD)
    machine.add("uv", f"echo {machine.bin}/hidden")
    bootstrap(clone)
    assert starts(machine, "hidden")


def test_without_a_python_one_sentence_says_what_to_do(clone: Path, machine: Machine) -> None:
    machine.add("python3", OLD)
    result = bootstrap(clone)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "Python 3.11 or newer" in line
    assert "(python3: Python 3.9.2)" in line
    assert "apt-get install python3 python3-venv" in line


def test_root_gets_the_python_of_the_distribution(clone: Path, machine: Machine) -> None:
    machine.bin.joinpath("id").unlink()
    machine.add("id", "echo 0")
    machine.add("ready", GOOD)
    machine.add("apt-get", f'case "$*" in install*) cp {machine.bin}/ready {machine.bin}/python3;; esac')
    assert bootstrap(clone).stdout == f"ran {clone}\n"
    assert any("python3 python3-venv" in call for call in machine.calls("apt-get"))


def test_a_named_python_is_taken_or_refused_but_never_replaced(
    clone: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.add("python3", GOOD)
    machine.add("mine", GOOD)
    monkeypatch.setenv("PYTHON", "mine")
    bootstrap(clone)
    assert starts(machine, "mine")
    monkeypatch.setenv("PYTHON", "/no/python")
    result = bootstrap(clone)
    assert result.returncode == 1
    assert "PYTHON=/no/python is no Python 3.11 or newer" in result.stderr
    assert not starts(machine, "python3")


def test_on_another_system_it_says_that_the_course_needs_linux(clone: Path, machine: Machine) -> None:
    machine.bin.joinpath("uname").unlink()
    machine.add("uname", "echo Darwin")
    machine.add("python3", GOOD)
    result = bootstrap(clone)
    assert result.returncode == 1
    assert "this is Darwin" in result.stderr
    assert not starts(machine, "python3")


def test_set_up_needs_only_the_standard_library() -> None:
    script = "import sys; sys.path.insert(0, sys.argv[1]); import labkit.setup.command, labkit.setup.__main__"
    from tests.support import PROJECT

    subprocess.run([sys.executable, "-I", "-S", "-c", script, str(PROJECT)], check=True)
