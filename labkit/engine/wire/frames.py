"""The multiplexed stream: standard output and error of a program without a terminal, on one connection.

Each frame is 8 bytes (1 = stdout, 2 = stderr; three zero bytes; the length, big-endian 32 bit) and the payload.
With a terminal there is one stream only, and its bytes go as they are.

See: Docker Engine API, "Attach to a container" (stream format).
"""

from __future__ import annotations

import struct

__all__ = ["MULTIPLEXED", "RAW", "STDERR", "STDOUT", "frame"]

STDOUT, STDERR = 1, 2
RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

_HEADER = struct.Struct(">B3xI")


def frame(stream: int, data: bytes) -> bytes:
    """Return ``data`` with its header: ready to be sent."""
    return _HEADER.pack(stream, len(data)) + data
