"""PID 1 of the sandbox: waits for every process that nobody else waits for, and ends with the kernel's own.

A process whose parent has ended becomes a child of PID 1, and its exit status stays in the process table until PID 1 asks for it.
When the Jupyter kernel (process 2) ends, PID 1 ends, and with it Linux kills every process of the PID namespace.

In a virtual machine (`labkit.sandbox.machine`) it starts the kernel itself, from the command that it is given, and passes SIGINT on.

It is run as a file by ``python -I -S`` and imports next to nothing: it starts while the kernel starts. Signals
from inside reach PID 1 only if it has a handler; Python has one for SIGINT, so that one is ignored. From outside the kernel is
addressed directly, so nothing needs to be passed on.

See: pid_namespaces(7), wait(2).
"""

import os
import signal
import sys

__all__ = ["KERNEL_PID", "main"]

KERNEL_PID = 2


def main(command: list[str]) -> None:
    """Wait until the kernel has ended; exit as a shell would show it: 128 + N for signal N."""
    if command:
        kernel = os.posix_spawn(command[0], command, os.environ, setsid=True)
        signal.signal(signal.SIGINT, lambda number, _frame: os.killpg(kernel, number))
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == KERNEL_PID:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1:])
