"""A server of kernels that runs in a terminal, for the attack that types into it: ``ioctl(TIOCSTI)``. See: ioctl_tty(2)."""

from __future__ import annotations

import os
import select
import sys
import termios
from pathlib import Path

from tests.attacks.canaries import said
from tests.attacks.harness import Attack, Plain, Runner
from tests.attacks.kernels import SandboxedKernel

__all__ = ["main"]


def main(mode: str, folder: str, text: str) -> None:
    """Let the attack go on, in the sandbox or without, and print what appears on this program's input."""
    from tests.attacks.test_kernel import types_into_the_terminal

    assert os.isatty(0) and os.ttyname(0)
    attributes = termios.tcgetattr(0)
    attributes[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(0, termios.TCSANOW, attributes)
    kernel = SandboxedKernel(Path(folder)) if mode == "sandbox" else None
    runner: Runner = kernel or Plain(Path(folder))
    attack = Attack("type", types_into_the_terminal, said(text=text), in_kernel=False)
    with attack.canary() as canary, runner.answer(attack, canary.arguments) as answer:
        ready, _, _ = select.select([0], [], [], 0.5)
        heard = os.read(0, 1000) if ready else b""
    if kernel is not None:
        kernel.close()
    sys.stdout.write(f"typed: {heard!r} {answer}\n")
    sys.stdout.flush()
