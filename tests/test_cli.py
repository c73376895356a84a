from __future__ import annotations

import ast
import os
import subprocess
import sys
import time

import pytest

import labkit as package
from labkit.cli import COMMANDS
from tests.support import PROJECT
from tests.support.cli import LABKIT, labkit


def test_the_version_is_that_of_the_package() -> None:
    done = labkit("--version")
    assert (done.returncode, done.stdout) == (0, f"labkit {package.__version__}\n")


def test_help_lists_every_command_with_a_line() -> None:
    done = labkit("--help")
    assert done.returncode == 0
    for name, (_, line) in COMMANDS.items():
        assert name in done.stdout
        assert line.split()[0] in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(name: str) -> None:
    done = labkit(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"labkit {name}" in done.stdout


def test_help_comes_at_once_and_loads_no_command() -> None:
    times_s = []
    for _ in range(5):
        began_s = time.monotonic()
        subprocess.run([*LABKIT, "--help"], stdout=subprocess.DEVNULL, check=True, cwd=PROJECT)
        times_s.append(time.monotonic() - began_s)
    assert min(times_s) < 0.15
    code = "import sys; from labkit.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in sys.modules if m.startswith('labkit.')], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert set(ast.literal_eval(done.stderr)) == {"labkit.cli", "labkit.errors"}


@pytest.mark.parametrize("words", [[], ["fly"], ["--fly"], ["run", "--fly", "true"], ["run", "--net", "moon", "true"]])
def test_wrong_use_is_status_2_with_the_usage(words: list[str]) -> None:
    done = labkit(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: labkit")
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    done = subprocess.run([*LABKIT, "ps"], stdout=write_fd, stderr=subprocess.PIPE, text=True, check=False, cwd=PROJECT)
    os.close(write_fd)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_command_is_installed_under_its_name() -> None:
    found = os.path.join(os.path.dirname(sys.executable), "labkit")
    if os.path.exists(found):
        shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
        assert shown == labkit("--version").stdout
