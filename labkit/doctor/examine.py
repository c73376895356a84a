"""Ask everything at once and put the answers together.

The helper (`labkit.doctor.helper`) tries what needs a process of its own, programs are started for their version, and meanwhile this
process looks up packages. Each has a deadline; what has not answered by then is a row that says so, so the report is
always whole and never late.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from labkit.doctor.answers import Answer, no
from labkit.doctor.features import FEATURES
from labkit.doctor.report import Feature, Report
from labkit.doctor.software import ProgramCheck, check_libseccomp, check_packages

__all__ = ["examine", "patience_s"]

#: Between the helper's last answer and the report: ending what hangs, removing a cgroup.
_MARGIN_S = 0.25
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from labkit.doctor.helper import main; main(float(sys.argv[2]))"


def examine(*, timeout_s: float | None = None, python: str = sys.executable) -> Report:
    """Try every feature as this user and return the report; nothing is left behind.

    It takes about half a second on an idle machine; after ``timeout_s`` (None: `patience_s`) what has not answered is
    reported as such. ``python`` runs the probes; it needs nothing but its standard library.
    """
    timeout_s = patience_s() if timeout_s is None else timeout_s
    began_s = time.monotonic()
    deadline_s = began_s + timeout_s
    with _start_helper(python, timeout_s - _MARGIN_S) as helper, ProgramCheck() as programs:
        try:
            found = check_packages() | {"libseccomp": check_libseccomp()}
            probed, said = _collect(helper, deadline_s)
            found |= probed | programs.collect(deadline_s)
        finally:
            helper.kill()
    features = tuple(_feature(name, group, found, said) for name, group in FEATURES.items())
    return Report(features, _host(), time.monotonic() - began_s)


def patience_s() -> float:
    """Return how long to wait for answers: 1.8 s, and longer where more wants to run than there are CPUs.

    On a machine that busy a probe is slow without anything being wrong, and "no" would be a false answer.
    """
    waiting_per_cpu = os.getloadavg()[0] / (os.cpu_count() or 1)
    return 1.8 * min(max(1.0, waiting_per_cpu), 5.0)


def _start_helper(python: str, timeout_s: float) -> subprocess.Popen[str]:
    package_parent = str(Path(__file__).resolve().parents[2])
    # A session of its own: an interrupt from the keyboard must not stop it half-way through its clean-up.
    return subprocess.Popen(
        [python, "-I", "-S", "-c", _BOOT, package_parent, str(timeout_s)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True, cwd="/",
    )  # fmt: skip


def _collect(helper: subprocess.Popen[str], deadline_s: float) -> tuple[dict[str, Answer], str]:
    """Return the helper's answers, and what it said on standard error if it failed."""
    try:
        output, errors = helper.communicate(timeout=max(0.01, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        output, errors = _end(helper)
    answers = {}
    for line in output.splitlines():
        with suppress(ValueError):  # the last line may be cut off
            name, *fields = json.loads(line)
            answers[name] = Answer(*fields)
    return answers, errors.strip().rpartition("\n")[2]


def _end(helper: subprocess.Popen[str]) -> tuple[str, str]:
    """Kill the helper with all its probes, one of which may hold its pipes open, and return what it said until then."""
    with suppress(ProcessLookupError):
        os.killpg(helper.pid, signal.SIGKILL)  # its own session's group; it has not been waited for
    try:
        return helper.communicate(timeout=_MARGIN_S)
    except subprocess.TimeoutExpired:
        return "", ""


def _feature(name: str, group: str, found: dict[str, Answer], said: str) -> Feature:
    answer = found.get(name)
    if answer is None and group == "control groups":
        answer = found.get("cgroups")  # one probe answers for all of them; this says why it did not
    if answer is None:
        rule = f"the probe failed: {said}" if said else "it did not answer in time"
        answer = no("no answer", rule=rule, remedy="Try again when the machine is idle; report it if it stays.")
    return Feature(name, group, answer.state, answer.detail, answer.rule, answer.remedy)


def _host() -> dict[str, str]:
    return _machine() | _sandbox()


def _sandbox() -> dict[str, str]:
    """Return the sandbox of labkit's that this process is in, in one line, if it is in one (`labkit.sandbox.here`)."""
    try:
        return {"sandbox": str(json.loads(Path("/run/jupyter/sandbox.json").read_text())["summary"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _machine() -> dict[str, str]:
    with suppress(OSError):
        return {
            "Linux": platform.release(),
            "machine": platform.machine(),
            "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
            "Python": platform.python_version(),
            "uid": str(os.geteuid()),
        }
    return {
        "Linux": platform.release(),
        "machine": platform.machine(),
        "Python": platform.python_version(),
        "uid": str(os.geteuid()),
    }
