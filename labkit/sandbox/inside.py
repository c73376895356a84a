"""The little that runs inside the kernel: an IPython extension that says what the server outside cannot say.

Before each cell it notes the request that the cell came with, so that, should the kernel be killed, the server can answer for
it (`labkit.sandbox.notice`). And where the sandbox is weaker than it should be, the first cell that runs shows why.

See: IPython's documentation, "Writing IPython extensions" and "IPython Events".
"""

from __future__ import annotations

import json
import os
from typing import Any

__all__ = ["BUSY_FILE", "WARNING_VARIABLE", "load_ipython_extension"]

BUSY_FILE = "/run/jupyter/busy"
#: The environment variable with the warning, if there is one.
WARNING_VARIABLE = "LABKIT_SANDBOX_WARNING"


def load_ipython_extension(shell: Any) -> None:
    """Register the two hooks; called by IPython when the kernel starts."""
    if os.path.exists(BUSY_FILE):
        busy_fd = os.open(BUSY_FILE, os.O_WRONLY | os.O_CLOEXEC)
        shell.events.register("pre_run_cell", lambda _info: _note(busy_fd, shell))
        shell.events.register("post_run_cell", lambda _result: os.ftruncate(busy_fd, 0))
    warning = os.environ.get(WARNING_VARIABLE, "")
    if warning:
        _warn_once(shell, warning)


def _note(busy_fd: int, shell: Any) -> None:
    header = shell.kernel.get_parent("shell").get("header", {})
    text = json.dumps(header, default=str).encode()
    os.ftruncate(busy_fd, 0)
    os.pwrite(busy_fd, text, 0)


def _warn_once(shell: Any, warning: str) -> None:
    def show(_info: object) -> None:
        from IPython.display import display

        shell.events.unregister("pre_run_cell", show)
        display({"text/plain": warning, "text/html": _box(warning)}, raw=True)  # type: ignore[no-untyped-call]

    shell.events.register("pre_run_cell", show)


def _box(text: str) -> str:
    from html import escape

    return (
        '<div role="alert" style="border:2px solid #b35900;padding:.6em 1em;max-width:60em">'
        f"<strong>Not a full sandbox.</strong> {escape(text)}</div>"
    )
