"""Where the child cannot be machine code it is a copy of the launcher that runs Python: slower, and the same container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import PROJECT, requires

pytestmark = requires("userns", "overlay-userns")

SOURCE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from labkit.container import Container, Limits, run
from labkit.isolation.cgroups import default_parent
words = ["sh", "-c", "echo $$; id -u; hostname; cat /proc/uptime"]
limits = Limits(pids=16) if "pids" in default_parent().controllers else None
seen = []
for offset_s in (0, 1_000_000):
    seen.append(run(Container(words, rootfs=sys.argv[2], hostname="copy", limits=limits, time_offset_s=offset_s)).text.split())
print(json.dumps(seen))
"""


@requires("timens")
def test_a_copied_child_makes_the_same_container_time_offset_included(rootfs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SOURCE, str(PROJECT), str(rootfs)],
        capture_output=True, text=True, timeout=60, env=os.environ | {"LABKIT_CHILD": "copy"},
    )  # fmt: skip
    assert done.stderr == ""
    plain, shifted = json.loads(done.stdout)
    assert plain[:3] == shifted[:3] == ["1", "0", "copy"]
    # A copy enters its time namespace when it is forked, so this is also what kernels before 6.3 need.
    assert 1_000_000 - 60 < float(shifted[3]) - float(plain[3]) < 1_000_000 + 60
