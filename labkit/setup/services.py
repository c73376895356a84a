"""What is installed for a course starts no service: a witness of the tests is a program to run, no daemon for the whole machine.

Debian's packages start their services when they are installed, and have them started at every boot. The first is asked of
``policy-rc.d``: status 101 forbids it. The second is a link that systemd makes; new units are disabled again. What was there before,
and whatever rule the machine's owner has written, stays as it is.

See: invoke-rc.d(8), deb-systemd-helper(1p), systemctl(1) (disable).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["POLICY", "UNITS", "without_services"]

POLICY = Path("/usr/sbin/policy-rc.d")
UNITS = Path("/lib/systemd/system")
_FORBID = "#!/bin/sh\n# Made by labkit for the time of an installation.\nexit 101\n"


@contextmanager
def without_services(policy: Path = POLICY, units: Path = UNITS) -> Iterator[None]:
    """Have packages that are installed within neither start services nor enable them. Needs root."""
    before = _units(units)
    made = False
    with suppress(OSError):
        descriptor = os.open(policy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
        with open(descriptor, "w") as file:
            file.write(_FORBID)
        made = True
    try:
        yield
    finally:
        if made:
            policy.unlink(missing_ok=True)
        _disable(sorted(_units(units) - before))


def _units(folder: Path) -> set[str]:
    return {path.name for kind in ("service", "socket", "timer") for path in folder.glob(f"*.{kind}")}


def _disable(names: list[str]) -> None:
    systemctl = shutil.which("systemctl")
    if names and systemctl is not None:
        # Works without a running systemd, too: it only removes links. Units that cannot be enabled are no mistake.
        subprocess.run([systemctl, "--no-reload", "disable", *names], capture_output=True, check=False)
