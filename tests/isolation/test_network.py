"""Interfaces and the loopback, against /sys/class/net, /proc/net/dev and real connections."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.isolation import network
from labkit.linux.constants import NS
from tests.support import PROJECT, in_child, requires


def test_interfaces_are_those_of_proc_net_dev() -> None:
    rows = Path("/proc/net/dev").read_text().splitlines()[2:]
    assert {item.name for item in network.interfaces()} == {row.split(":")[0].strip() for row in rows}


def test_flags_and_sizes_are_those_that_sysfs_shows() -> None:
    for item in network.interfaces():
        folder = Path("/sys/class/net", item.name)
        if not folder.exists():
            pytest.skip("the /sys here shows another network namespace")
        assert item.mtu_bytes == int((folder / "mtu").read_text())
        assert item.index == int((folder / "ifindex").read_text())
        assert item.up == bool(int((folder / "flags").read_text(), 16) & 1)


@requires("userns", "network-namespace")
def test_a_new_network_namespace_has_lo_alone_and_down_and_a_connection_works_once_it_is_up() -> None:
    def inside() -> list[list[object]]:
        import dataclasses
        import socket

        from labkit.isolation.network import interfaces, set_loopback_up

        def connects() -> str:
            with socket.socket() as server, socket.socket() as client:
                try:
                    server.bind(("127.0.0.1", 0))
                    server.listen()
                    client.settimeout(2.0)
                    client.connect(server.getsockname())
                except OSError as error:
                    return type(error).__name__ + str(error.errno)
            return "connected"

        report = [[dataclasses.asdict(item) for item in interfaces()], connects()]
        set_loopback_up()
        set_loopback_up()  # a second time changes nothing
        return [report, [[dataclasses.asdict(item) for item in interfaces()], connects()]]

    (before, refused), (after, connected) = in_child(inside, namespaces=int(NS.USER | NS.NET))
    assert [(item["name"], item["up"], item["address"]) for item in before] == [("lo", False, None)]
    assert [(item["name"], item["up"], item["address"]) for item in after] == [("lo", True, "127.0.0.1")]
    assert refused == "OSError101"  # ENETUNREACH
    assert connected == "connected"


@requires("userns", "network-namespace")
def test_without_the_owning_user_namespace_the_loopback_cannot_be_switched_on() -> None:
    def inside() -> str:
        from labkit.isolation.network import set_loopback_up
        from labkit.linux.constants import NS
        from labkit.linux.syscalls import unshare

        unshare(NS.NET)
        unshare(NS.USER)  # the network namespace belongs to the user namespace before
        try:
            set_loopback_up()
        except PermissionError:
            return "refused"
        return "allowed"

    assert in_child(inside, namespaces=int(NS.USER)) == "refused"


@requires("userns", "network-namespace")
def test_the_module_runs_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labkit.isolation.network"],
        capture_output=True, text=True, timeout=20, check=True, cwd=PROJECT, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert "127.0.0.1 fails" in done.stdout and "127.0.0.1 works" in done.stdout
