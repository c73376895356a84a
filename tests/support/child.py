"""Children in which a test does what the test process must not: unshare, mount, drop, load a filter.

`in_child` takes a function's *source* into a fresh ``python -I``, so the function imports what it needs itself, and
gives back what it returns, which must be JSON. The test process forks nothing and stays as it was.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["PROJECT", "ChildFailed", "in_child", "run_python"]

#: The top folder of the checkout.
PROJECT = Path(__file__).resolve().parents[2]
_PRELUDE = f"import sys, json\nsys.path.insert(0, {str(PROJECT)!r})\n"
#: Enters namespaces; with a user namespace the caller is root in it, whoever it was before.
_ENTER = """
def _enter(flags):
    import os
    from labkit.linux.constants import NS, MountFlag
    from labkit.linux.syscalls import mount, unshare
    uid, gid = os.geteuid(), os.getegid()
    unshare(NS(flags))
    if NS.USER in NS(flags):
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    if NS.MNT in NS(flags):
        mount(None, "/", None, MountFlag.REC | MountFlag.PRIVATE)
"""


class ChildFailed(AssertionError):
    """The child raised or was killed; the message holds its traceback or signal."""


def in_child(function: Callable[..., Any], *arguments: Any, namespaces: int = 0, timeout_s: float = 20.0) -> Any:
    """Return ``function(*arguments)``, run in a new Python process, first moved into new ``namespaces`` (`NS` flags).

    ``function`` may use only its arguments and what it imports itself. With NS.USER it runs as root of that
    namespace; with NS.MNT no mount of it reaches the machine.
    Raises: ChildFailed with the child's traceback, or its signal; subprocess.TimeoutExpired.
    """
    source = textwrap.dedent(inspect.getsource(function))
    source = source[source.index("def ") :]  # without decorators
    call = f"{function.__name__}(*json.loads(sys.argv[1]))"
    enter = f"{_ENTER}\n_enter({int(namespaces)})\n" if namespaces else ""
    code = f"{_PRELUDE}{enter}{source}\nanswer = {call}\nprint(json.dumps(answer), flush=True)\n"
    done = run_python(code, json.dumps(arguments), timeout_s=timeout_s)
    if done.returncode != 0:
        raise ChildFailed(f"{function.__name__} ended with status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_python(
    code: str, *arguments: str, flags: tuple[str, ...] = ("-I",), timeout_s: float = 20.0
) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a new Python with ``flags`` and return how it ended, with its output."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code, *arguments],
        capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
