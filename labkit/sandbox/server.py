"""``make lab``: JupyterLab on lesson 00, with as little on the screen as a student needs.

The server runs in this process, so that the address can be printed at the moment its socket answers. Jupyter itself picks a
free port and a secret token; it listens on this machine only. As root it insists on being told so. Where there is no
display there is no browser to open: the printed address is all.

Leaves out: what the server does and does not do for a student (`labkit.sandbox.server_options`).
See: the Jupyter server's configuration reference (ServerApp).
"""

from __future__ import annotations

import atexit
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from labkit.sandbox import policy, view
from labkit.sandbox.server_options import FIRST_LESSON, course_options, enter, hold_config
from labkit.setup import parts
from labkit.setup.steps import checkout_folder

__all__ = ["address_of", "has_display", "main", "server_arguments", "with_options"]

_WELCOME = """labkit: JupyterLab is ready. If no browser opens, open this address:

    {address}

Stop it with Ctrl-C, twice."""


def has_display(environ: Mapping[str, str]) -> bool:
    """Say whether a graphical browser can be opened: there is a display (X, Wayland), or a Windows around it (WSL)."""
    return any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))


def server_arguments(notebooks: Path, *, work: Path, euid: int, environ: Mapping[str, str]) -> list[str]:
    """Return the options for the Jupyter server."""
    arguments = [
        *course_options(notebooks, work=work),
        # Jupyter announces a token of its own making in eight lines; a given one it leaves to us.
        f"--IdentityProvider.token={secrets.token_hex(24)}",
        "--Application.log_level=ERROR",
    ]
    arguments += ["--allow-root"] if euid == 0 else []
    return arguments + ([] if has_display(environ) else ["--no-browser"])


def with_options(defaults: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return ``defaults`` and ``given``; what is given takes the place of a default, as Jupyter takes an option only once."""
    names = {option.partition("=")[0] for option in given}
    return [option for option in defaults if option.partition("=")[0] not in names] + list(given)


def main(argv: Sequence[str] | None = None) -> int:
    """Start JupyterLab with ``argv`` added to its options, and serve until it is stopped."""
    notebooks = checkout_folder() / "notebooks"
    enter(os.environ)  # before Jupyter is loaded, which reads the environment once
    atexit.register(hold_config().remove)
    from jupyterlab.labapp import LabApp  # takes a third of a second, and only this function needs it

    os.environ["PATH"] = parts.search_path(os.environ.get("PATH", os.defpath))  # for the kernels
    work = view.work_folder(policy.load())
    arguments = server_arguments(notebooks, work=work, euid=os.geteuid(), environ=os.environ)
    server = LabApp.initialize_server(argv=with_options(arguments, sys.argv[1:] if argv is None else argv))
    address = address_of(server.connection_url, server.identity_provider.token)
    server.io_loop.add_callback(print, _WELCOME.format(address=address), flush=True)
    server.start()
    return 0


def address_of(server_url: str, token: str) -> str:
    """Return the address of lesson 00 on the server; the token in it stands for a password."""
    query = f"?token={token}" if token else ""
    return f"{server_url.rstrip('/')}/lab/tree/{FIRST_LESSON}{query}"


if __name__ == "__main__":
    sys.exit(main())
