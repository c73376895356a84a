from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support import PROJECT, requires
from tests.support.cli import LABKIT, labkit

pytestmark = requires("userns", "overlay-userns")


@dataclass
class Terminal:
    """A terminal with somebody in front of it: types, reads, changes the size of the window."""

    master_fd: int
    slave_fd: int
    seen: bytes = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master_fd, text.encode())

    def wait_for(self, text: str, timeout_s: float = 15) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while text.encode() not in self.seen and time.monotonic() < deadline_s:
            if select.select([self.master_fd], [], [], 0.1)[0]:
                self.seen += os.read(self.master_fd, 4096)
        return text.encode() in self.seen

    @contextmanager
    def run(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [*LABKIT, "run", "-t", "-i", *words], stdin=self.slave_fd, stdout=self.slave_fd, stderr=self.slave_fd,
            start_new_session=True, cwd=PROJECT,
        )  # fmt: skip
        try:
            yield process
            process.wait(timeout=20)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    master_fd, slave_fd = pty.openpty()
    yield Terminal(master_fd, slave_fd)
    os.close(master_fd)
    os.close(slave_fd)


def test_the_program_has_a_terminal_of_its_own(terminal: Terminal) -> None:
    with terminal.run("--", "sh", "-c", "tty; test -t 0 && test -t 1 && echo both") as process:
        assert terminal.wait_for("/dev/pts/0")
        assert terminal.wait_for("both")
    assert process.returncode == 0


def test_the_size_of_the_window_is_passed_on_at_the_start_and_when_it_changes(terminal: Terminal) -> None:
    terminal.resize(33, 101)
    script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done"
    with terminal.run("--", "sh", "-c", script) as process:
        assert terminal.wait_for("33 101")
        assert terminal.wait_for("ready")
        terminal.resize(44, 123)
        process.send_signal(signal.SIGWINCH)
        assert terminal.wait_for("44 123")
        process.send_signal(signal.SIGKILL)


def test_typing_reaches_the_program_and_ctrl_c_interrupts_it_not_labkit(terminal: Terminal) -> None:
    with terminal.run(
        "--", "sh", "-c", "read line; echo got $line; trap 'echo stopped; exit 3' INT; sleep 60"
    ) as process:
        terminal.type("hello\n")
        assert terminal.wait_for("got hello")
        time.sleep(0.2)  # until the trap is set; there is no sign of it
        terminal.type("\x03")
        assert terminal.wait_for("stopped")
    assert process.returncode == 3


def test_the_caller_s_terminal_is_as_before(terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal.slave_fd)
    with terminal.run("--", "sh", "-c", "echo in raw mode; sleep 0.3") as process:
        assert terminal.wait_for("in raw mode")
        assert termios.tcgetattr(terminal.slave_fd) != before
    assert process.returncode == 0
    assert termios.tcgetattr(terminal.slave_fd) == before


def test_a_pipe_can_be_connected_to_a_terminal_inside() -> None:
    lines = "".join(f"line {number}\n" for number in range(2_000))
    done = labkit("run", "-t", "--", "sh", "-c", "stty -echo; cat | wc -l", data=lines)
    assert done.stdout.strip().endswith("2000")  # what came before stty is echoed
    assert done.returncode == 0


def test_a_program_that_does_not_read_does_not_hold_its_own_output_up() -> None:
    done = labkit("run", "-t", "--", "sh", "-c", "seq 20000; exit 4", data="x\n" * 100_000)
    assert "\n20000" in done.stdout.replace("\r", "")
    assert done.returncode == 4


def test_without_a_terminal_outside_the_one_inside_has_the_usual_size() -> None:
    assert labkit("run", "-t", "--", "stty", "size").stdout.strip() == "24 80"
