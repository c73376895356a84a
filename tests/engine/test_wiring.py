"""The picture of the network is what ip and the counters of the interfaces say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from labkit.engine.wiring import read_wiring
from tests.engine.support import IMAGE
from tests.support import PROJECT, requires

pytestmark = requires("userns", "overlay-userns", "program:busybox", "pyseccomp")

BY_HAND = """
import os, sys; sys.path.insert(0, sys.argv[1])
from labkit.container import Container
from labkit.engine.network.byhand import Bridge
from labkit.measure.rootfs import busybox_rootfs
with busybox_rootfs() as root, Container(["sleep", "60"], rootfs=root) as one, Bridge("labkit-hand", "10.79.0.1/24") as bridge:
    one.start()
    bridge.plug(one.pid, "10.79.0.2")
    with one.exec(["/bin/busybox", "ping", "-c", "1", "-W", "3", "10.79.0.1"]) as ping:
        print(ping.communicate(timeout_s=20).exit.code)
    print(os.popen("ip -o link show type bridge").read().count("labkit-hand:"))
print(os.popen("ip -o link").read().count("labkit-hand"))
"""


@requires("root")
def test_addresses_and_packets_are_those_of_the_container(client: docker.DockerClient) -> None:
    client.networks.create("labkit-wire")
    container = client.containers.run(
        IMAGE, ["sleep", "60"], detach=True, name="labkit-node", network="labkit-wire", stop_signal="KILL"
    )
    container.exec_run(["ping", "-c", "2", "-i", "0.2", "172.17.0.1"])
    wiring = read_wiring(client)
    (node,) = (node for node in wiring.nodes if node.name == "labkit-node")
    shown = container.exec_run(["ip", "-o", "-4", "addr", "show", "eth0"]).output.decode().split()[3]
    assert node.addresses == {"labkit-wire": shown.partition("/")[0]}
    line = container.exec_run(["grep", "eth0", "/proc/net/dev"]).output.decode().split()
    assert 0 < node.received_packets <= int(line[2]) and 0 < node.sent_packets <= int(line[10])
    assert "labkit-wire" in wiring.networks and "none" not in wiring.networks


@requires("root", "program:ip")
@pytest.mark.skipif(os.geteuid() != 0, reason="interfaces are root's")
def test_a_bridge_by_hand_carries_packets_and_goes(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", BY_HAND, str(PROJECT)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (["0", "1", "0"], "")
