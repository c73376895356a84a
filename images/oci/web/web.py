"""A web application of one file: every visit to / is counted in a file, /health says ok, /visits tells the number as JSON."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = os.environ.get("VERSION", "1")
PORT = int(os.environ.get("PORT", "8080"))
COUNTER = Path(os.environ.get("DATA", "/data"), "visits")


def count(by: int) -> int:
    """Add ``by`` to the counter and return it; a lock keeps two visitors, or two containers, from counting as one."""
    with COUNTER.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        visits = int(file.read() or 0) + by
        if by:
            file.truncate(0)
            file.write(str(visits))
        return visits


class Handler(BaseHTTPRequestHandler):
    """Answers one visitor."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer("text/plain", "ok\n")
        elif self.path == "/visits":
            self.answer("application/json", json.dumps({"visits": count(0), "version": VERSION}) + "\n")
        elif self.path == "/":
            self.answer("text/plain", f"hello from {socket.gethostname()}, version {VERSION}: visit {count(1)}\n")
        else:
            self.send_error(404)

    def answer(self, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def check() -> int:
    """Ask the running application whether it is well: the health check of the image."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2) as answer:
            return 0 if answer.status == 200 else 1
    except OSError:
        return 1


def main() -> None:
    # As PID 1 of a container a process hears only the signals for which it has a handler.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with ThreadingHTTPServer(("", PORT), Handler) as server:
        print(f"listening on port {PORT}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(check())
    main()
