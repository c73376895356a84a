"""Where the engine listens: a unix socket that is its owner's alone, or TCP with TLS, or TCP on an explicit loopback address.

Whoever can speak to the engine can do with the machine what the engine can. So the unix socket is made in mode 0600, under
a umask that leaves no moment in which it is open to others; and plain TCP on any address that another machine could
reach is refused. (Docker only warns about it.)

See: unix(7), Docker's "Protect the Docker daemon socket".
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import stat
from dataclasses import dataclass

from labkit.errors import InvalidSpec, InvalidState

__all__ = ["TlsFiles", "listen_tcp", "listen_unix", "server_context"]

_BACKLOG = 128
#: sizeof(sun_path) less the final zero; sys/un.h.
_LONGEST_PATH = 107


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The server's certificate and key, and the authority that clients must be signed by (empty: any client)."""

    certificate: str
    key: str
    client_authority: str = ""


def listen_unix(path: str) -> socket.socket:
    """Return a socket that listens at ``path``, mode 0600; a dead one that lies there is replaced.

    Raises: InvalidSpec for a path that is too long or something else, InvalidState if somebody answers there.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise InvalidSpec(f"The socket path {path} has more than {_LONGEST_PATH} bytes (unix(7)): give a shorter one.")
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise InvalidState(f"The engine cannot listen at {path}: {error.strerror}.") from error
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener


def _remove_dead(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InvalidSpec(f"{path} exists and is no socket: give another path.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                raise InvalidState(f"The socket {path} cannot be looked at: {error.strerror}.") from error
        else:
            raise InvalidState(f"Another engine answers at {path}: end it first, or give another path.")
    os.unlink(path)


def listen_tcp(address: str, *, tls: bool) -> socket.socket:
    """Return a socket that listens at ``HOST:PORT``. Raises: InvalidSpec unless it is TLS or a loopback address."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit() or not 0 <= int(port) < 1 << 16:
        raise InvalidSpec(f"{address!r} is no address to listen at: write HOST:PORT, as in 127.0.0.1:2375.")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not tls and not is_loopback:
        raise InvalidSpec(
            f"Without TLS the engine listens only at a loopback address, not at {address!r}: whoever reaches it can do "
            "all that the engine can. Give --tls-cert, --tls-key and --tls-ca, or write 127.0.0.1."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise InvalidState(f"The engine cannot listen at {address}: {error.strerror or error}.") from error
    listener.listen(_BACKLOG)
    return listener


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return what is needed to speak TLS as a server. Raises: InvalidSpec for files that are missing or do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.client_authority:
            context.load_verify_locations(files.client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidSpec(f"The TLS files cannot be used: {error}.") from error
    return context
