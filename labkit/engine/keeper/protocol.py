"""What the engine and the keeper say to each other: one connection a request, one message a line of the table.

========== ============================================= ==========================================================
operation  the engine sends                               the keeper answers
========== ============================================= ==========================================================
start      spec, limits, log, streams; ``hold``           [pid and network namespace; the engine: go], pid, cgroup
exec       the same for a further program                 pid
attach     one end of a socket pair (SCM_RIGHTS)          done; the session lives on that socket
signal     id, number                                     done
resize     id, rows, columns                              done
freeze     id, on or off                                  done
limits     id, limits                                     done
watch      id                                             a byte whenever the log has grown; the end at the end
list       -                                              every process: pid, start, how it ended
subscribe  -                                              a message whenever a process ends
forget     id                                             done
leave      -                                              done, and the keeper ends with all its containers
========== ============================================= ==========================================================

Messages are pickles: both ends are the same code of the same user behind a socket in a folder of mode 0700, so a pickle gives
away no right that the sender does not have (as between a program and its launcher).

See: unix(7) (SOCK_SEQPACKET, SCM_RIGHTS).
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Sequence
from typing import Any

__all__ = ["SOCKET_NAME", "TIMEOUT_S", "connect", "listen", "receive", "send"]

SOCKET_NAME = "keeper.sock"
TIMEOUT_S = 30.0
_MESSAGE_BYTES = 256 << 10
_BACKLOG = 128


def listen(folder: str) -> socket.socket:
    """Return the keeper's listening socket in ``folder``; one that a dead keeper left is replaced."""
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.umask(0o177)
        try:
            if os.path.exists(f"{folder}/{SOCKET_NAME}"):
                os.unlink(f"{folder}/{SOCKET_NAME}")
            listener.bind(_short(folder_fd))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        return listener
    finally:
        os.close(folder_fd)


def connect(folder: str) -> socket.socket:
    """Return a connection to the keeper of ``folder``. Raises: OSError (ENOENT, ECONNREFUSED) if there is none."""
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
            conn.settimeout(TIMEOUT_S)
            conn.connect(_short(folder_fd))
        except OSError:
            conn.close()
            raise
        return conn
    finally:
        os.close(folder_fd)


def _short(folder_fd: int) -> str:
    # A socket's path has at most 107 bytes, and a state folder may lie deep: through its descriptor it is always short.
    return f"/proc/self/fd/{folder_fd}/{SOCKET_NAME}"


def send(conn: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message, with descriptors. Raises: OSError; EMSGSIZE for a spec beyond 256 KiB."""
    socket.send_fds(conn, [pickle.dumps(message)], list(fds))


def receive(conn: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the next message and its descriptors; an empty one at the end of the connection."""
    data, fds, _, _ = socket.recv_fds(conn, _MESSAGE_BYTES, 8, socket.MSG_CMSG_CLOEXEC)
    return (pickle.loads(data) if data else {}), fds
