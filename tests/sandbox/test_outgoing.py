"""Outgoing connections: out to the world, and nowhere else. The world is a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing
from labkit.sandbox import outgoing
from tests.support import PROJECT, requires

#: The first stands for the world (TEST-NET-2, RFC 5737), the second for a neighbour in the machine's own network.
WORLD, NEIGHBOUR = "198.51.100.7", "10.1.2.3"
_SERVE = """
import http.server, os, sys, threading
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello from the world")
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ.pop("PYTEST_CURRENT_TEST", None)
from tests.sandbox.driver import _main
_main(*sys.argv[1:])
"""
_TRY = """
import urllib.request
for address in %r:
    try:
        print(address, urllib.request.urlopen(f"http://{address}:8000/", timeout=3).read().decode())
    except OSError as error:
        print(address, "refused")
"""


def run_in_a_world_of_its_own(kernels: Path, course: Path, folder: Path, code: str) -> dict[str, object]:
    """Run a cell in a sandbox whose server lives in a fresh network namespace with two addresses."""
    (folder / "policy.toml").write_text(f'[network]\nmode = "outgoing"\n[mounts]\nwork = "{folder}/work"\n')
    environ = os.environ | {
        "LABKIT_SANDBOX_POLICY": str(folder / "policy.toml"), "PYTHONPATH": str(PROJECT), "JUPYTER_RUNTIME_DIR": str(folder),
    }  # fmt: skip
    addresses = "; ".join(f"ip address add {address}/32 dev lo" for address in (WORLD, NEIGHBOUR))
    command = [
        "unshare",
        *(["--net"] if os.geteuid() == 0 else ["--net", "--user", "--map-root-user", "--mount"]),
        "sh",
        "-c",
        f'ip link set lo up; {addresses}; exec "$@"',
        "sh",
        sys.executable,
        "-c",
        _SERVE,
    ]
    request = json.dumps({"op": "run", "code": code, "timeout_s": 60}) + "\n"
    done = subprocess.run(
        [*command, str(kernels), str(course), "labkit"], input=request, env=environ, cwd=PROJECT, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done
    return dict(json.loads(lines[1]))


@requires("userns", "overlay-userns", "program:slirp4netns", "program:nft", "program:ip", "program:nsenter")
def test_the_world_answers_and_the_machine_and_its_neighbours_do_not(
    kernels: Path, course: Path, tmp_path: Path
) -> None:
    addresses = [WORLD, NEIGHBOUR, "127.0.0.1", "10.0.2.2", "10.0.2.100", "169.254.169.254", "10.9.0.1"]
    # The student, root inside, throws away every filter that is within reach first.
    code = (
        "import subprocess; subprocess.run('nft flush ruleset; ip route add 10.1.2.0/24 via 10.9.0.1', shell=True)\n"
        + _TRY % (addresses,)
    )
    answer = run_in_a_world_of_its_own(kernels, course, tmp_path, code)
    assert str(answer["text"]).splitlines() == [
        f"{WORLD} hello from the world",
        *(f"{address} refused" for address in addresses[1:]),
    ], answer
    left = subprocess.run(["pgrep", "--full", f"slirp4netns.*{tmp_path}"], capture_output=True, check=False)
    assert left.returncode == 1


def test_without_the_programs_it_is_refused_with_the_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "search_path", lambda _: "/nonexistent")
    with pytest.raises(FeatureMissing, match=r'network\.mode = "outgoing".*Install slirp4netns, nftables'):
        outgoing.Outgoing().start(1, 2)
