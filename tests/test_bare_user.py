"""Containers for a user to whom nobody gave anything: no range in /etc/subuid, no cgroup. `tests/as_user.sh` runs these."""

from __future__ import annotations

import os
import subprocess

import pytest

from labkit.container import Container, Namespaced, run
from labkit.errors import FeatureMissing
from labkit.isolation.cgroups import Cgroup, Limits
from labkit.linux.constants import NS
from labkit.linux.proc import IdMapping, read_gid_map, read_uid_map
from tests.support import requires

pytestmark = requires("user", "userns", "no-subuid", "undelegated")


def test_a_container_runs_and_its_root_is_the_user_outside() -> None:
    with Container(["sleep", "30"], image_like_host=True) as container:
        container.start()
        assert read_uid_map(container.pid) == (IdMapping(0, os.getuid(), 1),)
        assert read_gid_map(container.pid) == (IdMapping(0, os.getgid(), 1),)
        shown = subprocess.run(
            ["ps", "-o", "uid=", "-p", str(container.pid)], capture_output=True, text=True, check=True
        )
        assert int(shown.stdout) == os.getuid()


def test_inside_the_user_is_root_alone_with_itself() -> None:
    done = run(
        Container(["sh", "-c", "id -u; echo $$; ls /sys/class/net; hostname"], image_like_host=True, hostname="box")
    )
    assert (done.stdout.split(), done.stderr) == ([b"0", b"1", b"lo", b"box"], b"")


def test_namespaces_alone_need_nothing_either() -> None:
    done = run(Namespaced(["hostname", "labkit-test"], namespaces=NS.USER | NS.UTS))
    assert (done.exit.code, done.stderr) == (0, b"")
    assert os.uname().nodename != "labkit-test"


def test_a_limit_that_cannot_be_kept_is_refused_with_the_remedy_and_nothing_runs() -> None:
    with pytest.raises(FeatureMissing, match="Run as root"):
        run(Container(["true"], image_like_host=True, limits=Limits(memory_bytes=64 << 20)))
    with pytest.raises(FeatureMissing, match="Run as root"):
        Cgroup.create(None, Limits(pids=5))
