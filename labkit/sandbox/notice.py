"""A last word to the notebook for a kernel that was killed: why its cell will never finish, and what to do.

A killed process cannot say anything, and JupyterLab only knows that the kernel is gone. So the server's side speaks in its place: for a
moment it serves the kernel's output channel itself, at the same address, and the clients, which try to connect again
all the time, receive one error message for the cell that was running. Only then is the kernel reported dead, and
JupyterLab starts a new one.

Leaves out: clients that connect later than `_PATIENCE_S`.
See: the Jupyter messaging specification ("error"), zmq_ipc(7).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import zmq
from jupyter_client.session import Session

from labkit.sandbox.policy import Policy
from labkit.units import format_bytes

__all__ = ["NAMES", "header_of", "publish", "words"]

#: The error's name in the notebook, by limit.
NAMES = {"memory": "MemoryLimitReached", "disk": "DiskLimitReached"}

#: How long clients get to come back: they try every tenth of a second, somewhat spread.
_PATIENCE_S = 0.6
_HEADER_KEYS = ("msg_id", "msg_type", "session", "username", "version", "date")


def words(limit: str, policy: Policy) -> str:
    """Return reason, limit and advice for a kernel that met its "memory" or its "disk" limit."""
    where = "of the sandbox's policy" if policy.source == "defaults" else f"in {policy.source}"
    if limit == "memory":
        return (
            f"This sandbox may use {format_bytes(policy.memory_bytes)} of memory, all its programs and files in memory together. That was"
            " used up, so Linux ended the kernel, and its variables are gone; a new one starts by itself. Use less at once, or have"
            f" limits.memory {where} raised."
        )
    return (
        f"The folder work of this sandbox may hold {format_bytes(policy.work_bytes)} and {policy.work_files} files. It held more, so the"
        " kernel was ended; in the new one the folder is read-only. Delete files in JupyterLab's file browser and restart the kernel, or"
        f" have disk.work {where} raised."
    )


def header_of(noted: bytes) -> dict[str, Any] | None:
    """Return the header of the request that the kernel was working on, as it noted it in its file; None if it was idle.

    The student's programs can write that file, so it is believed only as far as it is a header.
    """
    try:
        header = json.loads(noted)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or not all(isinstance(header.get(key), str) for key in _HEADER_KEYS[:3]):
        return None
    return {key: header[key] for key in _HEADER_KEYS if isinstance(header.get(key), str)}


def publish(connection: Mapping[str, Any], parent: dict[str, Any] | None, *, name: str, words: str) -> bool:
    """Serve the output channel for a moment and send one error to whoever comes; return whether anybody did."""
    key = connection["key"]
    session = Session(key=key.encode() if isinstance(key, str) else key, username="kernel")
    content = {"ename": name, "evalue": words, "traceback": [f"\x1b[31m{name}\x1b[0m: {words}"]}
    context = zmq.Context()
    try:
        with context.socket(zmq.XPUB) as socket:
            socket.linger = 200
            if "curve_secretkey" in connection:
                socket.curve_server = True
                socket.curve_publickey, socket.curve_secretkey = (
                    connection[name].encode() for name in ("curve_publickey", "curve_secretkey")
                )
            socket.bind(_output_address(connection))
            came = _subscribers(socket)
            if came:
                session.send(socket, "error", content=content, parent=parent, ident=b"error")
            return came > 0
    finally:
        context.term()


def _output_address(connection: Mapping[str, Any]) -> str:
    """Return where the kernel's output channel was: jupyter_client puts a dash before the number of a Unix socket."""
    transport, between = connection["transport"], "-" if connection["transport"] == "ipc" else ":"
    return f"{transport}://{connection['ip']}{between}{connection['iopub_port']}"


def _subscribers(socket: zmq.Socket[bytes]) -> int:
    deadline_s, came = time.monotonic() + _PATIENCE_S, 0
    while (left_s := deadline_s - time.monotonic()) > 0:
        if socket.poll(int(left_s * 1000) + 1):
            came += socket.recv().startswith(b"\x01")
    return came
