"""The guest's agent as a process of this machine: the same instructions, the same lists, no virtual machine in between.

What decides about streams, time limits and errors is on the host's side, so most of it can be tried in milliseconds here; that it
also works in a guest is for the tests that boot one.
"""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.vm.agent import agent_program
from labkit.vm.calls import MAILBOX, MAILBOX_BYTES, PORT_FD, CallList
from labkit.vm.port import Port

__all__ = ["LocalAgent", "local_agent"]

_READ_WRITE, _SHARED_FIXED = 3, 0x11


class LocalAgent:
    """A running agent: its process and the port to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: Port) -> None:
        self.process, self.port = process, port

    def open_files(self) -> int:
        """Return how many descriptors the agent has."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def local_agent(folder: Path) -> Iterator[LocalAgent]:
    """Run the agent below ``folder``; it ends with the block."""
    memory = os.memfd_create("labkit-test")
    os.ftruncate(memory, MAILBOX_BYTES)
    ours, theirs = socket.socketpair()
    first = CallList()
    first.call("mmap", MAILBOX, MAILBOX_BYTES, _READ_WRITE, _SHARED_FIXED, memory, 0)
    first.call("dup3", theirs.fileno(), PORT_FD, 0o2000000)
    program = folder / "agent"
    program.write_bytes(agent_program(first))
    program.chmod(0o755)
    # In a guest the agent is init, to whom a signal's default action does not happen. Python ignores SIGPIPE, and hands that down.
    process = subprocess.Popen(
        [program], pass_fds=[memory, theirs.fileno()], stdin=subprocess.DEVNULL, restore_signals=False
    )
    theirs.close()
    with mmap.mmap(memory, MAILBOX_BYTES) as pages, memoryview(pages) as mailbox:
        os.close(memory)
        port = Port(ours, mailbox, lambda: "The agent is gone.")
        try:
            yield LocalAgent(process, port)
        finally:
            port.close()
            process.kill()
            process.wait()
