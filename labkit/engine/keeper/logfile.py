"""The log of a container: Docker's ``json-file`` format, one JSON object a line, rotated.

``{"log": "text\\n", "stream": "stdout", "time": "2026-01-01T00:00:00.000000000Z"}``. A line of output longer than 16 KiB takes several
objects, only the last of which ends with a newline. When the file is full it becomes ``.1``, ``.1`` becomes ``.2``, and the oldest is
dropped: a container that writes for ever fills no disk. Docker's own default keeps everything; here it is five files of 20 MiB.

See: Docker documentation, "JSON File logging driver".
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

__all__ = ["DEFAULT_LOG_BYTES", "DEFAULT_LOG_FILES", "LogFile", "LogPlace", "timestamp"]

DEFAULT_LOG_BYTES, DEFAULT_LOG_FILES = 20 << 20, 5
_LONGEST_LINE = 16 << 10
_STREAMS = {1: "stdout", 2: "stderr"}


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where a log is written and how large it may get; ``max_files`` counts the one that is written to."""

    path: str
    max_bytes: int = DEFAULT_LOG_BYTES
    max_files: int = DEFAULT_LOG_FILES


def timestamp(time_ns: int) -> str:
    """Return a time as Docker writes it: RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


class LogFile:
    """Writes one container's log; lines that have not ended yet wait here."""

    def __init__(self, place: LogPlace) -> None:
        self._place = place
        self._fd = os.open(place.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size_bytes = os.fstat(self._fd).st_size
        self._waiting = {1: b"", 2: b""}

    def write(self, stream: int, data: bytes) -> None:
        """Add output of ``stream`` (1 or 2). Raises: OSError (ENOSPC)."""
        lines = (self._waiting[stream] + data).split(b"\n")
        rest = lines.pop()
        pieces = [line + b"\n" for line in lines]
        while len(rest) >= _LONGEST_LINE:
            pieces.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        self._waiting[stream] = rest
        self._append(stream, pieces)

    def close(self) -> None:
        """Write what has not ended with a newline, and close."""
        for stream, rest in self._waiting.items():
            if rest:
                self._append(stream, [rest])
        os.close(self._fd)

    def _append(self, stream: int, pieces: list[bytes]) -> None:
        # One time and one write for all that was read at once: a program that writes line by line must not wait for its log.
        tail = f',"stream":"{_STREAMS[stream]}","time":"{timestamp(time.time_ns())}"}}\n'.encode()
        waiting = bytearray()
        for piece in pieces:
            for start in range(0, len(piece), _LONGEST_LINE):
                text = piece[start : start + _LONGEST_LINE].decode(errors="replace")
                waiting += b'{"log":' + json.dumps(text).encode() + tail
                if self._size_bytes + len(waiting) > self._place.max_bytes:
                    self._flush(waiting)
        self._flush(waiting)

    def _flush(self, waiting: bytearray) -> None:
        """Write what waits, into a new file if the old one is full."""
        if self._size_bytes + len(waiting) > self._place.max_bytes and self._size_bytes:
            self._rotate()
        os.write(self._fd, waiting)
        self._size_bytes += len(waiting)
        waiting.clear()

    def _rotate(self) -> None:
        path, last = self._place.path, self._place.max_files - 1
        for number in range(last, 1, -1):
            if os.path.exists(f"{path}.{number - 1}"):
                os.replace(f"{path}.{number - 1}", f"{path}.{number}")
        if last >= 1:
            os.replace(path, f"{path}.1")
        else:
            os.unlink(path)
        os.close(self._fd)
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size_bytes = 0
