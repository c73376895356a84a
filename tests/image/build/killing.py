"""Kills builds at random moments: ``python -m tests.image.build.killing TIMES LONGEST_S STORE CONTEXT``; prints what became of each.

A program of its own, because it forks: each child finds everything imported and begins to build at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from labkit.image.build.builder import build
from labkit.image.store import ImageStore
from tests.image.build.corpus import BASE

__all__ = ["text_of"]


def text_of(number: int) -> str:
    """Return a Containerfile whose steps no other build has made."""
    return f"FROM {BASE}\nCOPY big /big{number}\nRUN cp /big{number} /copy && echo {number} > /n\nENV N={number}\n"


def main(times: int, longest_s: float, store: Path, context: Path) -> None:
    """Start and kill ``times`` builds; print ``done N`` for each that had ended before."""
    choice = random.Random(4)
    for number in range(times):
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_fd)
            build(context, containerfile=text_of(number).encode(), store=ImageStore(store), tags=[f"killed:{number}"])
            os.write(write_fd, b"x")
            os._exit(0)
        os.close(write_fd)
        time.sleep(choice.uniform(0.005, longest_s))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if os.read(read_fd, 1):
            print("done", number, flush=True)
        os.close(read_fd)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
