"""PID 1 of the sandbox: waits for every process that nobody else waits for, and ends with the kernel's own.

A process whose parent has ended becomes a child of PID 1, and its exit status stays in the process table until PID 1 asks for it.
When the Jupyter kernel (process 2) ends, PID 1 ends, and with it Linux kills every process of the PID namespace.

It is run as a file by ``python -I -S`` and imports next to nothing: it starts while the kernel starts. Signals
from inside reach PID 1 only if it has a handler; Python has one for SIGINT, so that one is ignored. From outside the kernel is
addressed directly, so nothing needs to be passed on.

See: pid_namespaces(7), wait(2).
"""

import os
import signal

__all__ = ["KERNEL_PID", "main"]

KERNEL_PID = 2


def main() -> None:
    """Wait until the kernel has ended; exit as a shell would show it: 128 + N for signal N."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == KERNEL_PID:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
