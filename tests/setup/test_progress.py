"""Progress: one line a step in a log, a redrawn line on a terminal, and the words of a command that fails."""

from __future__ import annotations

import io
import re
import sys

import pytest

from labkit.errors import FeatureMissing
from labkit.setup.progress import Progress, Step


class Terminal(io.StringIO):
    """A text file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_a_step_with_number_announcement_and_time() -> None:
    out = io.StringIO()
    progress = Progress(2, out=out)
    with progress.step("packages") as step:
        step.announce("42.0 MB to download")
        step.show("never seen in a log")
    with progress.step("kernelspec") as step:
        step.result = "Python (labkit)"
    first, second = out.getvalue().splitlines()
    assert re.fullmatch(r"\[1/2\] packages … 42\.0 MB to download … done in \d+ s", first)
    assert second == "[2/2] kernelspec … Python (labkit)"


def test_a_terminal_sees_what_the_command_prints_now_and_keeps_only_the_result() -> None:
    out = Terminal()
    with Progress(1, out=out).step("packages") as step:
        step.execute([sys.executable, "-c", "print('Collecting jupyterlab')"])
    assert "Collecting jupyterlab" in out.getvalue()
    assert out.getvalue().rsplit("\r\033[K", 1)[1] == "[1/1] packages … done in 0 s\n"


def test_a_line_on_a_terminal_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    with Progress(1, out=out).step("packages") as step:
        step.show("x" * 500)
    assert max(map(len, re.split(r"\r\033\[K|\n", out.getvalue()))) < 60


def test_a_step_that_raises_is_closed_as_failed_with_its_notes_below() -> None:
    out = io.StringIO()
    fails = ["sh", "-c", "echo first; echo no network >&2; exit 3"]
    progress = Progress(1, out=out)
    with (
        pytest.raises(FeatureMissing, match=r"nothing came \(sh ended with status 3\)\. Retry\."),
        progress.step("packages") as step,
    ):
        step.run(fails, what="nothing came", remedy="Retry.")
    assert out.getvalue() == "[1/1] packages … failed\n      | first\n      | no network\n"


def test_a_command_reads_nothing_from_the_student(step: Step) -> None:
    assert step.execute(["cat"]).lines == ()


def test_a_program_that_is_not_there_is_named(step: Step) -> None:
    with pytest.raises(FeatureMissing, match="labkit-no-such-program cannot be run: No such file"):
        step.execute(["labkit-no-such-program"])


def test_bytes_that_are_no_text_do_not_stop_a_step(step: Step) -> None:
    assert step.execute(["sh", "-c", r"printf '\377ok\n'"]).lines == ("\ufffdok",)
