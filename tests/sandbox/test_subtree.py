"""The cgroups of a sandbox: limits above, a group that is given away below."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from labkit.isolation.cgroups import Limits, default_parent
from labkit.sandbox.subtree import PREFIX, Subtree
from tests.support import requires

pytestmark = requires("cgroups")
MIB = 1 << 20


@pytest.fixture
def name() -> str:
    """Return the name of a sandbox that nothing else has."""
    return f"{PREFIX}{secrets.token_hex(4)}"


def test_the_limits_lie_above_what_is_given_away(name: str) -> None:
    owner = (os.geteuid() or 4242, os.getegid() or 4242)
    tree = Subtree.create(name, Limits(memory_bytes=64 * MIB, pids=20), owner=owner)
    try:
        outer, inner = tree.group.folders["memory"], tree.payload.folders["memory"]
        assert inner.parent == outer
        limit = next(path for path in (outer / "memory.max", outer / "memory.limit_in_bytes") if path.exists())
        assert limit.read_text().strip() == str(64 * MIB)
        assert (inner.stat().st_uid, (inner / "cgroup.procs").stat().st_uid) == (owner[0], owner[0])
        if os.geteuid() == 0:
            assert limit.stat().st_uid == 0
            assert (inner / limit.name).stat().st_uid == 0
    finally:
        tree.delete()
    assert not outer.exists()


@requires("root")
def test_every_hierarchy_of_the_machine_gets_a_group(name: str) -> None:
    tree = Subtree.create(name, Limits(), owner=(4242, 4242))
    try:
        number = name.removeprefix(PREFIX)
        made = set(Path("/sys/fs/cgroup").rglob(f"labkit-*{number}"))
        mounts = [line.split()[4] for line in open("/proc/self/mountinfo") if " - cgroup" in line]
        assert all(any(str(path).startswith(mount + "/") for path in made) for mount in mounts), made
    finally:
        tree.delete()
    assert not list(Path("/sys/fs/cgroup").rglob(f"labkit-*{number}"))
    assert default_parent().layout.version in ("v1", "hybrid", "v2")
