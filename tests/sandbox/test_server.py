"""`make lab`: the options of the server, and the real server asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from labkit.sandbox import server as lab
from tests.support import PROJECT

VENV = PROJECT / ".venv"


def options(*, euid: int = 1000, **environ: str) -> list[str]:
    """Return the server's options on such a machine."""
    return lab.server_arguments(Path("/notebooks"), work=Path("/notebooks/work"), euid=euid, environ=environ)


def test_a_browser_opens_only_where_there_is_a_display() -> None:
    assert "--no-browser" in options(TERM="xterm")
    for display in ({"DISPLAY": ":0"}, {"WAYLAND_DISPLAY": "wayland-0"}):
        assert "--no-browser" not in options(**display)


def test_root_is_allowed_only_for_root() -> None:
    assert "--allow-root" in options(euid=0)
    assert "--allow-root" not in options(euid=1000)


def test_every_start_has_a_token_of_its_own() -> None:
    tokens = [next(word for word in options() if "token=" in word) for _ in range(2)]
    assert tokens[0] != tokens[1]
    assert re.fullmatch(r"--IdentityProvider\.token=[0-9a-f]{48}", tokens[0])


def test_the_address_leads_to_lesson_00_and_has_no_empty_token() -> None:
    assert lab.address_of("http://localhost:8888/", "abc").endswith(":8888/lab/tree/00_start_here.ipynb?token=abc")
    assert lab.address_of("http://localhost:8888/", "").endswith("00_start_here.ipynb")


def test_an_option_that_is_given_takes_the_place_of_the_default() -> None:
    assert lab.with_options(["--a=1", "--b=2", "--b=3"], ["--b=4", "--port", "9"]) == ["--a=1", "--b=4", "--port", "9"]


@contextlib.contextmanager
def started(command: Sequence[str], home: Path) -> Iterator[tuple[str, list[str]]]:
    """Start a Jupyter server; yield the address it printed, and the lines printed until then."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home / "run"), "PYTHONUNBUFFERED": "1"}
    environment["TMPDIR"] = str(home)
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            found = re.search(r"http://\S+", line)
            if found:
                yield found.group(), lines
                break
        else:
            pytest.fail("the server ended:\n" + "\n".join(lines))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=20)


def answer(url: str, *, timeout_s: float = 20.0) -> tuple[int, bytes]:
    """Return status and body; the socket may need a moment after the address is printed."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)


def test_the_server_answers_shows_one_kernel_and_keeps_strangers_out(tmp_path: Path) -> None:
    with started([sys.executable, "-P", "-m", "labkit.sandbox.server"], tmp_path) as (address, lines):
        base, _, token = address.partition("/lab/tree/00_start_here.ipynb?token=")
        assert answer(address)[0] == 200
        assert answer(f"{base}/api/contents")[0] == 403
        kernels = json.loads(answer(f"{base}/api/kernelspecs?token={token}")[1])["kernelspecs"]
        assert set(kernels) <= {"labkit"}
        shown = json.loads(answer(f"{base}/api/contents?token={token}")[1])["content"]
        names = {entry["name"] for entry in shown}
        assert names >= {path.name for path in (PROJECT / "notebooks").glob("*.ipynb")}
        assert not [name for name in names if name.endswith((".py", "__pycache__"))]
        assert list(tmp_path.glob("jupyter-clean-cfg*")) == []
    said = [line for line in lines if line.strip()]
    assert said == ["labkit: JupyterLab is ready. If no browser opens, open this address:", f"    {address}"]


_HOLD = """
import os, sys
os.environ["JUPYTER_NO_CONFIG"] = "1"
from labkit.sandbox.server_options import hold_config
print(hold_config().path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_server_had_for_a_configuration_is_removed_by_the_next_start() -> None:
    found: list[Path] = []
    for _ in range(2):
        command = [sys.executable, "-P", "-c", _HOLD]
        with subprocess.Popen(
            command, cwd=PROJECT, stdin=-1, stdout=-1, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)}
        ) as process:
            assert process.stdout is not None
            found.append(Path(process.stdout.readline().strip()))
            assert [path.name for path in found[-1].glob("jupyter-clean-cfg*")], "Jupyter makes it somewhere else"
            process.kill()
    assert [folder.exists() for folder in found] == [False, True]
    subprocess.run([sys.executable, "-m", "labkit", "clean"], cwd=PROJECT, capture_output=True, check=False, timeout=60)
    assert not found[1].exists()


@pytest.mark.skipif(Path(sys.prefix) != VENV, reason="this is not the environment that `make` made")
def test_make_lab_answers_within_five_seconds_once_set_up(tmp_path: Path) -> None:
    """The must of the course: the best of up to four; where other programs keep the machine busy, its own CPU time counts."""
    took_s: list[float] = []
    while len(took_s) < 4 and min(took_s, default=99.0) >= 5.0:
        started_s, cpu_before_s = time.monotonic(), cpu_of_children_s()
        with started(["make", "lab"], tmp_path) as (address, _lines):
            assert answer(address)[0] == 200
            took_s.append(time.monotonic() - started_s)
        if os.getloadavg()[0] > (os.cpu_count() or 1) + 1:
            took_s[-1] = min(took_s[-1], cpu_of_children_s() - cpu_before_s)
    assert min(took_s) < 5.0, took_s


def cpu_of_children_s() -> float:
    """Return the CPU time of all children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
