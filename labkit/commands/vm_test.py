"""``labkit vm test``: labkit's tests of cgroup v2, where the host has v1 or none, in a guest on the host's files.

The guest has a kernel of its own and a pure v2 tree. The same checkout and the same Python run there, first as root, then as an ordinary
user who is made in the guest and to whom root has given a group of the tree (as systemd's ``Delegate=yes`` does). Chosen are the tests
that require cgroups, unless the arguments, which go to pytest as they are, name others. The counts of both runs come out of the guest into the folder that
``LABKIT_FEATURE_REPORT`` names, where ``make test`` puts them together with those of its other runs.

Leaves out: tests that need a browser, a network, or a second machine.
See: `labkit.vm.hostroot`, cgroups(7) ("Delegation"), tests/support/delegation.py.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.commands.vm import run_in
from labkit.errors import FeatureMissing, GuestError
from labkit.setup.steps import checkout_folder
from labkit.vm.guest import Guest
from labkit.vm.hostroot import HostRoot

__all__ = ["CHOSEN", "run"]

#: The tests that are run: in these folders, those that require one of these features.
CHOSEN = ("tests/isolation/cgroups", "tests/container/test_container.py", "tests/support/test_delegation.py")
REQUIRING = "cgroups,cgroup2,cgroup2:cpu,cgroup2:cpuset,cgroup2:io,cgroup2:memory,cgroup2:pids,psi"
MEMORY_MIB = 1536
USER = "labkit-guest"
_REPORTS = "/tmp/labkit-reports"
_KEPT = ("LABKIT_MUST_HAVE", "PYTEST_ADDOPTS", "HYPOTHESIS_PROFILE")
#: In the guest: a user with a home and a range of subordinate ids, and a way to Python and the checkout for everybody.
_MAKE_USER = f"""set -e
mkdir -m 1777 {_REPORTS}
ip link set lo up
echo '{USER}:x:19190:19190::/home/{USER}:/bin/sh' >> /etc/passwd
echo '{USER}:x:19190:' >> /etc/group
for file in /etc/subuid /etc/subgid; do echo '{USER}:1000000000:65536' >> $file; chmod 644 $file; done
mkdir -p /home/{USER}
chown 19190:19190 /home/{USER}
for folder in "$@"; do chmod o+x "$folder"; done
"""


def run(arguments: Sequence[str]) -> int:
    """Run the tests in a guest, as root and as an ordinary user; return 0 if all passed. Raises: LabkitError."""
    root = checkout_folder()
    python = root / ".venv/bin/python"
    if not python.exists():
        python = Path(sys.executable)
    began_s = time.monotonic()
    with HostRoot(MEMORY_MIB) as guest:
        _say(
            f"Linux {guest.exec(['uname', '-r']).text.strip()} in a guest, ready after {time.monotonic() - began_s:.1f} s"
        )
        if guest.exec(["test", "-d", str(root)]).status:
            raise GuestError(
                f"A guest has a /tmp and a /run of its own and does not see {root}: move the checkout elsewhere."
            )
        made = guest.exec(["sh", "-c", _MAKE_USER, "sh", *_ways_to(root, python.resolve())])
        if made.status:
            raise GuestError(f"The guest could not be prepared: {made.stderr.decode(errors='replace').strip()}.")
        statuses = [_run_tests(guest, root, python, arguments, as_root=as_root) for as_root in (True, False)]
        reports = _fetch_reports(guest)
    for report in reports:
        ran = report["features"].get("cgroup2", {}).get("ran", 0)
        _say(f"{report['run']} run: {ran} tests ran on cgroup v2, {report['outcomes'].get('failed', 0)} tests failed")
    _say(f"that took {time.monotonic() - began_s:.0f} s")
    # pytest's status 5: the arguments chose no test, which a part of the tests may well do.
    return 0 if all(status in (0, 5) for status in statuses) else 1


def _run_tests(guest: Guest, root: Path, python: Path, arguments: Sequence[str], *, as_root: bool) -> int:
    words = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--timeout=240"]
    words += [*arguments, *([] if any("/" in word for word in arguments) else [f"--requiring={REQUIRING}", *CHOSEN])]
    settings = {
        # Plugins of notebooks and browsers take longer to load than the tests take.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "LABKIT_TEST_RUN": "guest" if as_root else "guest-user",
        "LABKIT_FEATURE_REPORT": _REPORTS,
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONDONTWRITEBYTECODE": "1" if not as_root else "",
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
    }
    command = ["env", *(f"{name}={value}" for name, value in settings.items()), *words]
    if not as_root:
        change = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--reset-env"]
        # -P: root must not import from a folder that the user may write to.
        delegation = ["env", f"PYTHONPATH={root}", str(python), "-P", "-m", "tests.support.delegation", USER]
        command = [*delegation, *change, *command]
    _say(f"tests as {'root' if as_root else 'an ordinary user with a cgroup of its own'}: {shlex.join(words[3:])}")
    return run_in(guest, command, time_limit=None, cwd=str(root))


def _ways_to(*places: Path) -> list[str]:
    """Return the folders that everybody must be able to pass through to reach ``places``; the guest's copies are changed."""
    return sorted({str(parent) for place in places for parent in (place, *place.parents) if parent.is_dir()})


def _fetch_reports(guest: Guest) -> list[dict[str, Any]]:
    names = guest.exec(["ls", _REPORTS]).text.split()
    contents = {name: guest.copy_out(f"{_REPORTS}/{name}") for name in names}
    if folder := os.environ.get("LABKIT_FEATURE_REPORT"):
        for name, content in contents.items():
            Path(folder, f"guest-{os.getpid()}-{name}").write_bytes(content)
    if not contents:
        raise FeatureMissing("The tests in the guest left no report: they did not come to their end.")
    return [json.loads(content) for content in contents.values()]


def _say(text: str) -> None:
    print(f"labkit: {text}", file=sys.stderr, flush=True)
