"""``labkit vm``: streams and status as they are, errors as one sentence, and pytest's options left to pytest."""

from __future__ import annotations

import subprocess

import pytest

from labkit.vm.kernel import find_kernel
from tests.support import PROJECT, requires
from tests.support.cli import LABKIT, assert_one_sentence, labkit

pytestmark = [requires("vm"), pytest.mark.timeout(240)]


def test_streams_and_status_are_passed_on() -> None:
    done = labkit("vm", "run", "--", "sh", "-c", "cat; echo bad >&2; exit 7", data="good\n", timeout_s=120)
    assert (done.returncode, done.stdout, done.stderr) == (7, "good\n", "bad\n")


def test_input_without_an_end_does_not_hold_a_command_that_has_read_enough() -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        done = subprocess.run(
            [*LABKIT, "vm", "run", "--", "head", "-n", "2"], stdin=endless.stdout, capture_output=True, timeout=120,
            check=False, cwd=PROJECT,
        )  # fmt: skip
        endless.kill()
    assert (done.returncode, done.stdout) == (0, b"y\ny\n")


def test_exec_runs_on_the_hosts_files_in_the_callers_folder() -> None:
    done = labkit("vm", "exec", "--", "sh", "-c", "pwd; uname -r; rm README.md; touch labkit-x", timeout_s=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(PROJECT), find_kernel("hostroot").release]
    assert (PROJECT / "README.md").exists()
    assert not (PROJECT / "labkit-x").exists()


def test_a_program_that_is_not_there_is_127_and_no_command_is_wrong_use() -> None:
    done = labkit("vm", "run", "--", "labkit-no-such", timeout_s=120)
    assert done.returncode == 127
    assert_one_sentence(done.stderr)
    assert labkit("vm", "run", timeout_s=120).returncode == 2


def test_a_time_limit_ends_the_command() -> None:
    done = labkit("vm", "run", "--time-limit", "1s", "--", "sleep", "60", timeout_s=120)
    assert done.returncode == 1
    assert "took longer than 1 s" in done.stderr


def test_the_tests_in_a_guest_have_a_help_of_their_own() -> None:
    done = labkit("vm", "test", "--help")
    assert (done.returncode, "PYTEST ARGUMENTS" in done.stdout) == (0, True)
