"""A program that is killed again and again: ``python -m tests.image.registry.killing WHAT TIMES LONGEST_S STORE NAME...``.

It forks a child for each try, which pulls or pushes one of the names, and kills it with SIGKILL after a random time. For each try it
prints the name and whether the child had reported success before it died. It has one thread, so forking is safe.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from labkit.image import ImageStore, Reference
from labkit.image.registry.pull import pull
from labkit.image.registry.push import push


def main(what: str, times: str, longest_s: str, folder: str, *names: str) -> None:
    """Kill ``times`` children, each within ``longest_s``."""
    print("ready", flush=True)
    for turn in range(int(times)):
        name = names[turn % len(names)]
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            store = ImageStore(folder)
            if what == "pull":
                pull(Reference.parse(name), store)
            else:
                push(Reference.parse(name), store, source="local:1")
            os.write(writing, b"done")
            signal.pause()
        os.close(writing)
        time.sleep(random.uniform(0, float(longest_s)))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(name, os.read(reading, 4).decode() or "killed", flush=True)
        os.close(reading)


if __name__ == "__main__":
    main(*sys.argv[1:])
