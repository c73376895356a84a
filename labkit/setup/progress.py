"""One line a step: ``[2/4] packages … done in 12 s``, with what the step is doing shown while it runs.

On a terminal the line is redrawn in place, so that a long download is seen to move. In a file nothing can be
redrawn: the line grows from left to right and ends once.

Leaves out: percentages; neither pip nor apt-get tells how much work is left.
See: isatty(3), console_codes(4).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from labkit.errors import FeatureMissing

__all__ = ["Finished", "Progress", "Step"]

_LINES_KEPT = 20
_WIDEST = 200


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended, and the lines it printed on both outputs."""

    status: int
    lines: tuple[str, ...]


class Progress:
    """Counts the steps of one set-up and prints them; ``total`` is the number of steps announced."""

    def __init__(self, total: int, *, out: TextIO | None = None, verbose: bool = False) -> None:
        self.total = total
        self.number = 0
        self.out = sys.stderr if out is None else out
        self.verbose = verbose

    def say(self, sentence: str) -> None:
        """Print ``sentence`` on a line of its own, between two steps."""
        print(f"labkit: {sentence}", file=self.out, flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Open step ``title``; the line is closed with the time it took, or with ``failed``, in any case."""
        self.number += 1
        step = Step(f"[{self.number}/{self.total}] {title}", self.out, verbose=self.verbose)
        step.open()
        try:
            yield step
        except BaseException:
            step.close("failed")
            raise
        step.close(step.result or f"done in {step.elapsed_s:.0f} s")


class Step:
    """One running step. ``result`` replaces ``done in N s`` when set; ``notes`` are printed below the line."""

    def __init__(self, title: str, out: TextIO, *, verbose: bool = False) -> None:
        self.title = title
        self.result = ""
        self.notes: list[str] = []
        self._out = out
        self._verbose = verbose
        self._redraws = out.isatty() and not verbose
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the step was opened."""
        return time.monotonic() - self._started_s

    def open(self) -> None:
        """Print the beginning of the line."""
        self._write(f"{self.title} … ")

    def announce(self, text: str) -> None:
        """Add ``text`` to the line for good: what is about to take long, such as a download with its size."""
        self.title += f" … {text}"
        self._write(f"\r\033[K{self.title} … " if self._redraws else f"{text} … ")

    def show(self, text: str) -> None:
        """Show ``text`` at the end of the line for as long as nothing newer comes; only a terminal can do that."""
        if self._verbose:
            self._write(f"\n    {text}")
        elif self._redraws:
            room = max(20, shutil.get_terminal_size().columns - 1)
            line = f"{self.title} … {self.elapsed_s:.0f} s  {' '.join(text.split())}"
            self._write(f"\r\033[K{line[:room]}")

    def close(self, result: str) -> None:
        """End the line with ``result`` and print the notes below it."""
        self._write(f"\r\033[K{self.title} … {result}\n" if self._redraws else f"{result}\n")
        for note in self.notes:
            self._write(f"      {note}\n")
        self.notes.clear()

    def execute(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Finished:
        """Run ``command``, show its output line by line, and return its status and all it printed.

        Raises: FeatureMissing when there is no such program.
        """
        lines: list[str] = []
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise FeatureMissing(f"{command[0]} cannot be run: {error.strerror}.") from error
        with process:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                self.show(line.strip())
        return Finished(process.returncode, tuple(lines))

    def run(self, command: Sequence[str], *, what: str, remedy: str, env: Mapping[str, str] | None = None) -> None:
        """Run ``command`` as `execute` does, and print the end of its output if it fails.

        Raises: FeatureMissing that says ``what`` did not happen, with ``remedy``.
        """
        finished = self.execute(command, env=env)
        if finished.status:
            last = [line for line in finished.lines if line.strip()][-_LINES_KEPT:]
            self.notes += [f"| {line[:_WIDEST]}" for line in last]
            raise FeatureMissing(
                f"{what} ({Path(command[0]).name} ended with status {finished.status}).", remedy=remedy
            )

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
