"""``labkit engine serve``: a daemon that speaks the Docker Engine API, for the `docker` client and the Python SDK.

::

    labkit engine serve --socket PATH &
    DOCKER_HOST=unix://PATH docker ps

Exit status: 0 after SIGTERM or Ctrl-C; 1 failed; 2 wrong use.

See: `labkit.engine`, docker(1).
"""

from __future__ import annotations

import argparse
import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from labkit.errors import InvalidSpec

if TYPE_CHECKING:
    from labkit.engine.wire.sockets import TlsFiles

__all__ = ["add_arguments", "default_socket", "run"]


def default_socket() -> str:
    """Return where the engine of this user listens: in the folder of running things, which is the user's alone."""
    from labkit.container.runfolder import base_folder

    return f"{base_folder()}/engine.sock"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit engine``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    serve = actions.add_parser("serve", help="serve until SIGTERM or Ctrl-C")
    serve.add_argument(
        "--socket", metavar="PATH", action="append", default=[], help="a unix socket to listen at (mode 0600)"
    )
    serve.add_argument(
        "--tcp", metavar="HOST:PORT", action="append", default=[], help="a TCP address to listen at, too"
    )
    for name, words in (
        ("cert", "the server's certificate"),
        ("key", "its key"),
        ("ca", "who must have signed the clients'"),
    ):
        serve.add_argument(f"--tls-{name}", metavar="FILE", help=f"TLS: {words}")
    serve.add_argument("--state", metavar="DIR", help="where containers, volumes and networks are kept")
    serve.add_argument("--images", metavar="DIR", help="the image store (default: that of `labkit image`)")
    serve.add_argument("--keep-containers", action="store_true", help="let containers go on when the engine ends")
    serve.add_argument("--debug", action="store_true", help="log every request")


def run(args: argparse.Namespace) -> int:
    """Serve; return when told to end. Raises: LabkitError."""
    from labkit.engine import rootless
    from labkit.engine.serve import listen, serve
    from labkit.image.store import state_folder

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("labkit").setLevel(logging.DEBUG if args.debug else logging.WARNING)
    sockets = args.socket or ([] if args.tcp else [default_socket()])
    for path in sockets:
        os.makedirs(os.path.dirname(os.path.abspath(path)), 0o711, exist_ok=True)
    state = args.state or str(state_folder() / "engine")
    images = args.images or (None if args.state else str(state_folder() / "images"))

    def ready() -> None:
        for place in [*(f"unix://{path}" for path in sockets), *(f"tcp://{address}" for address in args.tcp)]:
            print(f"labkit: listening at {place}", flush=True)

    with ExitStack() as at_end:
        # Before this process may leave the machine's network for one of its own: clients are out there.
        listeners = listen(sockets, args.tcp, _tls_of(args), at_end)
        if rootless.is_needed():
            at_end.callback(rootless.become_root_of_own(f"{state}/run"))
        serve(state, listeners, images=images, keep_containers=args.keep_containers, ready=ready)
    return 0


def _tls_of(args: argparse.Namespace) -> TlsFiles | None:
    from labkit.engine.wire.sockets import TlsFiles

    if not (args.tls_cert or args.tls_key or args.tls_ca):
        return None
    if not (args.tls_cert and args.tls_key):
        raise InvalidSpec("TLS needs both --tls-cert and --tls-key.")
    return TlsFiles(args.tls_cert, args.tls_key, args.tls_ca or "")
