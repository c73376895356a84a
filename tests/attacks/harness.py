"""How an attack is tried: a small program, a canary on the host, first without the sandbox, then inside.

An attack is reached or not reached, and that is looked up from outside: the canary is dead, the secret is known, the file is
there. Without the sandbox means an ordinary process of the same user, which is what a notebook's program is otherwise. There the
attack must succeed, or say why it cannot; else a program that merely does not work would count as held.

The program answers with one line of JSON and then stays until the host has looked.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import tests.attacks.inside

__all__ = ["Answer", "Attack", "Canary", "Plain", "Runner", "always", "is_root", "program_text", "try_attack"]

Answer = dict[str, Any]
ANSWER_S = 40.0
_INSIDE = Path(tests.attacks.inside.__file__).read_text()


def is_root() -> bool:
    """Tell whether the server's user is root."""
    return os.geteuid() == 0


@dataclass(frozen=True, slots=True)
class Canary:
    """What was put up on the host: what the program is told, and how the host sees whether it was reached."""

    arguments: Mapping[str, Any]
    reached: Callable[[Answer], bool]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attempt. ``cannot`` gives the reason why it cannot succeed without the sandbox either, for this user, on this machine."""

    name: str
    program: Callable[..., dict[str, Any] | None]
    canary: Callable[..., AbstractContextManager[Canary]]
    cannot: Callable[[], str] = field(default=lambda: "")
    in_kernel: bool = False  # in the process of the notebook itself, not in a child of it

    def __str__(self) -> str:
        return self.name


def always(reason: str, *, for_root: bool = True) -> Callable[[], str]:
    """Return a ``cannot`` with a reason that holds for users, and unless ``for_root`` is false, for root too."""
    return lambda: reason if for_root or not is_root() else ""


class Runner(Protocol):
    """Where a program runs."""

    def answer(self, attack: Attack, arguments: Mapping[str, Any]) -> AbstractContextManager[Answer]:
        """Run the program and give its answer; it stays until the block ends."""
        ...


def program_text(attack: Attack, arguments: Mapping[str, Any]) -> str:
    """Return a Python program that attacks and answers; run by itself it stays until it gets a line."""
    source = textwrap.dedent(inspect.getsource(attack.program))
    call = f"answer_of({attack.program.__name__}, json.loads({json.dumps(dict(arguments))!r}))"
    stay = "" if attack.in_kernel else "sys.stdin.readline()\n"
    return f"{_INSIDE}\n{source[source.index('def ') :]}\nimport json\nprint(json.dumps({call}), flush=True)\n{stay}"


@dataclass
class Plain:
    """An ordinary process of the same user, without a sandbox."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def answer(self, attack: Attack, arguments: Mapping[str, Any]) -> Iterator[Answer]:
        """Run it as a child of the tests."""
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program_text(attack, arguments)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "LABKIT_SCRATCH": str(self.folder), **self.environ}, close_fds=not attack.in_kernel,
        )  # fmt: skip
        with process:
            try:
                yield _line_of(process)
            finally:
                with contextlib.suppress(BrokenPipeError):
                    process.communicate(b"\n", timeout=ANSWER_S)
                process.kill()


def _line_of(process: subprocess.Popen[bytes]) -> Answer:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], ANSWER_S)
    line = process.stdout.readline() if ready else b""
    if line:
        return dict(json.loads(line))
    process.kill()
    assert process.stderr is not None
    words = process.stderr.read().decode(errors="replace")
    if "Error" in words and "Traceback" in words:
        raise AssertionError(f"the program is broken:\n{words}")
    return {"errno": f"it was killed {words[-200:]}"}


def try_attack(attack: Attack, sandbox: Runner, plain: Runner, folder: Path) -> None:
    """Try the attack without the sandbox, where it must succeed or say why not, then inside, where it must fail.

    A canary is put up with what it is for (None, or the sandbox), and a folder for its things.
    """
    cannot = attack.cannot()
    with attack.canary(None, folder) as canary, plain.answer(attack, canary.arguments) as answer:
        reached = canary.reached(answer)
        if not reached and answer["errno"] == "ENOSYS":
            cannot = "this kernel was built without that system call"
        assert reached or cannot, f"without the sandbox the attack should succeed, and got {answer}"
        assert not (reached and cannot), f"it was said to be impossible ({cannot}), and yet it succeeded"
    with attack.canary(sandbox, folder) as canary, sandbox.answer(attack, canary.arguments) as answer:
        assert not canary.reached(answer), f"the attack succeeded in the sandbox: {answer}"
        assert "errno" in answer


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 3.0) -> bool:
    """Look again and again until ``condition`` holds or the time is over; return whether it does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True
