"""What a module that is run alone needs: a child with namespaces of its own, in which its mechanism can be tried without harm.

The child is a fork with a user namespace first, so that an ordinary user may do the rest; its parent writes the id maps, as for any
container. When the child ends, the kernel takes away all that it made.

Leaves out: everything that makes a container; that is `labkit.container`.
See: clone(2), user_namespaces(7), fork(2).
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

from labkit.isolation.idmap import container_maps, own_maps, user_maps, write_maps
from labkit.linux.constants import NS
from labkit.linux.syscalls import clone3

__all__ = ["in_child"]


def in_child(demonstrate: Callable[[], None], namespaces: NS) -> int:
    """Run ``demonstrate`` as root of a user namespace and of ``namespaces``; return 0, or 1 after a refusal, which is printed."""
    gate_r, gate_w = os.pipe()
    sys.stdout.flush()
    try:
        pid, pidfd = clone3(NS.USER | namespaces, exit_signal=signal.SIGCHLD)
    except OSError as error:
        return _refused(error)
    if pid == 0:
        _be_child(demonstrate, gate_r, gate_w)
    os.close(pidfd)
    try:
        maps, with_helpers = (container_maps(own_maps()), False) if os.geteuid() == 0 else user_maps()
        write_maps(pid, maps, with_helpers=with_helpers)
        os.write(gate_w, b"!")
    except OSError as error:
        _refused(error)
    finally:
        os.close(gate_w)
        os.close(gate_r)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _be_child(demonstrate: Callable[[], None], gate_r: int, gate_w: int) -> None:
    code = 1
    try:
        os.close(gate_w)
        if os.read(gate_r, 1):  # empty: there are no maps, and the parent has said why
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            demonstrate()
            code = 0
    except OSError as error:
        _refused(error)
    except BaseException:
        traceback.print_exc()  # what comes after os._exit would be silent
        raise
    finally:
        sys.stdout.flush()
        os._exit(code)


def _refused(error: OSError) -> int:
    sys.stderr.write(f"labkit: this machine refuses: {error}. `labkit doctor` says which rule it is and what to do.\n")
    sys.stderr.flush()
    return 1
