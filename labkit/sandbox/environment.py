"""The environment of a student's kernel: made from a list, never the server's own.

A server's environment holds its tokens, proxies, cloud keys and whatever its owner exported. What is not named here does not get in.

See: environ(7), Jupyter Server's configuration reference (JUPYTER_TOKEN).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from labkit.sandbox.view import HOME
from labkit.setup.parts import search_path

__all__ = ["environment"]

#: Passed on if the server has them: language, time zone, the notebook's name, and switches of labkit that lessons explain.
_KEPT = ("LANG", "LANGUAGE", "TZ", "JPY_SESSION_NAME", "COLORTERM", "LABKIT_CHILD")
_KEPT_PREFIXES = ("LC_",)


def environment(given: Mapping[str, str], *, hostname: str) -> dict[str, str]:
    """Return the environment for a kernel whose server was given ``given``."""
    kept = {name: value for name, value in given.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    return kept | {
        "HOME": HOME,
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        "TERM": "xterm-256color",
        "HOSTNAME": hostname,
        "PATH": search_path(given.get("PATH", os.defpath)),
        # ipykernel ends when its parent is no longer this process; its parent is PID 1.
        "JPY_PARENT_PID": "1",
        "LABKIT_SANDBOX": "1",
        "LABKIT_PROGRESS": f"{HOME}/work/.progress.json",  # the one folder that is there again next time
        "PYTHONDONTWRITEBYTECODE": "1",
    }
