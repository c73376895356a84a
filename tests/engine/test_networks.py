"""Networks: addresses, names, isolation, published ports. Everything happens in the engine's own network namespace."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError

from labkit.engine.network.publish import publish
from tests.engine.support import IMAGE, Daemon
from tests.support import requires

pytestmark = requires("root", "program:busybox", "program:docker", "program:nsenter", "program:ip")


def out(daemon: Daemon, *words: str) -> str:
    done = daemon.cli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


@pytest.fixture
def tidy(daemon: Daemon, client: docker.DockerClient) -> Iterator[Daemon]:
    """Give the engine; containers and networks of the test go afterwards (`client`)."""
    del client
    yield daemon


def serve(daemon: Daemon, name: str, *words: str, text: str = "hello") -> None:
    """Start a container that answers every connection to port 80 with ``text``."""
    script = f"while :; do echo {text} | nc -l -p 80 >/dev/null; done"
    out(daemon, "run", "-d", "--stop-timeout", "0", "--name", name, *words, IMAGE, "sh", "-c", script)


def ask(daemon: Daemon, target: str, *words: str) -> str:
    """Connect to port 80 of ``target`` from a new container and return what it says."""
    done = daemon.cli("run", "--rm", *words, IMAGE, "sh", "-c", f"nc -w 2 {target} 80 </dev/null")
    return done.stdout.decode().strip()


def test_containers_of_a_network_find_each_other_by_name_and_alias(tidy: Daemon) -> None:
    out(tidy, "network", "create", "net")
    serve(tidy, "server", "--network", "net", "--network-alias", "web")
    assert [ask(tidy, name, "--network", "net") for name in ("server", "web", "server.net")] == ["hello"] * 3
    said = out(tidy, "run", "--rm", "--network", "net", IMAGE, "cat", "/etc/resolv.conf")
    assert "nameserver 127.0.0.11" in said
    assert tidy.cli("run", "--rm", "--network", "net", IMAGE, "nslookup", "nosuchname").returncode != 0


def test_the_default_bridge_knows_no_names(tidy: Daemon) -> None:
    serve(tidy, "server")
    address = out(tidy, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "server")
    assert ask(tidy, address) == "hello"
    assert ask(tidy, "server") == ""


def test_networks_are_islands(tidy: Daemon) -> None:
    for name in ("one", "two"):
        out(tidy, "network", "create", name)
    serve(tidy, "server", "--network", "one")
    address = out(tidy, "inspect", "-f", "{{.NetworkSettings.Networks.one.IPAddress}}", "server")
    assert ask(tidy, address, "--network", "one") == "hello"
    assert ask(tidy, address, "--network", "two") == ""
    assert ask(tidy, "server", "--network", "two") == ""
    assert ask(tidy, address) == ""


def test_none_has_the_loopback_interface_alone(tidy: Daemon) -> None:
    assert out(tidy, "run", "--rm", "--network", "none", IMAGE, "ls", "/sys/class/net") == "lo"


def test_host_shares_the_engines_network(tidy: Daemon) -> None:
    # /sys shows the network of whoever mounted it, so the interfaces are asked of the kernel.
    inside = out(tidy, "run", "--rm", "--network", "host", IMAGE, "readlink", "/proc/self/ns/net")
    assert inside == tidy.in_network("readlink", "/proc/self/ns/net").stdout.decode().strip()


def test_an_address_can_be_chosen_where_the_subnet_was(tidy: Daemon) -> None:
    out(tidy, "network", "create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.9", "chosen")
    said = out(
        tidy,
        "run",
        "--rm",
        "--network",
        "chosen",
        "--ip",
        "10.77.0.50",
        IMAGE,
        "sh",
        "-c",
        "ip -4 addr show eth0; ip route",
    )
    assert "inet 10.77.0.50/24" in said
    assert "default via 10.77.0.9" in said
    refused = tidy.cli("run", "--rm", "--network", "chosen", "--ip", "10.78.0.50", IMAGE, "true")
    assert refused.returncode == 125
    serve(tidy, "holder", "--network", "chosen", "--ip", "10.77.0.51")
    refused = tidy.cli("run", "--rm", "--network", "chosen", "--ip", "10.77.0.51", IMAGE, "true")
    assert b"Address already in use" in refused.stderr
    assert tidy.cli("network", "create", "--subnet", "10.77.0.0/16", "overlapping").returncode == 1


def test_a_running_container_is_connected_and_disconnected(tidy: Daemon) -> None:
    out(tidy, "network", "create", "more")
    serve(tidy, "server")
    out(tidy, "network", "connect", "--alias", "late", "more", "server")
    assert ask(tidy, "late", "--network", "more") == "hello"
    assert out(tidy, "exec", "server", "ls", "/sys/class/net").split() == ["eth0", "eth1", "lo"]
    out(tidy, "network", "disconnect", "more", "server")
    assert out(tidy, "exec", "server", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert ask(tidy, "late", "--network", "more") == ""


def test_an_internal_network_has_no_way_out(tidy: Daemon) -> None:
    out(tidy, "network", "create", "--internal", "inner")
    assert "default" not in out(tidy, "run", "--rm", "--network", "inner", IMAGE, "ip", "route")


def test_a_tcp_port_is_published(tidy: Daemon) -> None:
    serve(tidy, "server", "-p", "127.0.0.1:8081:80", "-p", "8082:80")
    for port in ("8081", "8082"):
        assert (
            _eventually(lambda port=port: tidy.in_network("busybox", "nc", "-w", "2", "127.0.0.1", port).stdout)
            == b"hello\n"
        )  # type: ignore[misc]
    assert sorted(out(tidy, "port", "server").splitlines())[:2] == [
        "80/tcp -> 0.0.0.0:8082",
        "80/tcp -> 127.0.0.1:8081",
    ]
    taken = tidy.cli("run", "--rm", "-p", "8082:80", IMAGE, "true")
    assert taken.returncode == 125
    assert b"port is already allocated" in taken.stderr
    out(tidy, "rm", "-f", "server")
    assert tidy.in_network("busybox", "nc", "-w", "2", "127.0.0.1", "8081").returncode != 0


def test_a_udp_port_is_published(tidy: Daemon) -> None:
    """busybox has no UDP server but a resolver as client: the answer of the engine's own DNS server comes through."""
    out(tidy, "run", "-d", "--stop-timeout", "0", "--name", "udp", "-p", "127.0.0.1:8083:53/udp", IMAGE, "sleep", "60")
    address = out(tidy, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "udp")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        published = publish("udp", "127.0.0.1", 0, server.getsockname())
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            for sock, data in ((one, b"1"), (two, b"2")):
                sock.settimeout(10)
                sock.connect(("127.0.0.1", published.host_port))
                sock.send(data)
            asked = dict(server.recvfrom(100) for _ in range(2))
            for data, client_address in asked.items():
                server.sendto(b"answer to " + data, client_address)
            assert (one.recv(100), two.recv(100)) == (b"answer to 1", b"answer to 2")
        published.close()
    ports = tidy.in_network("cat", "/proc/net/udp").stdout.decode()
    assert f"0100007F:{8083:04X}" in ports
    assert address


def test_a_published_port_passes_on_half_closed_connections_whole(tidy: Daemon) -> None:
    script = "while :; do nc -l -p 80 -e sh -c 'wc -c'; done"
    out(
        tidy,
        "run",
        "-d",
        "--stop-timeout",
        "0",
        "--name",
        "count",
        "-p",
        "127.0.0.1:8084:80",
        IMAGE,
        "sh",
        "-c",
        script,
    )
    said = _eventually(
        lambda: tidy.in_network("sh", "-c", "head -c 1000000 /dev/zero | busybox nc -w 5 127.0.0.1 8084").stdout
    )
    assert said.strip() == b"1000000"


def test_the_world_sees_the_machines_address(tidy: Daemon) -> None:
    """A second namespace plays the world: what comes from a container has the address of the engine's machine."""
    add = "ip link add labkit-w0 type veth peer name labkit-w1; ip addr add 192.0.2.1/24 dev labkit-w0; ip link set labkit-w0 up"
    tidy.in_network("sh", "-c", add)
    try:
        out(tidy, "run", "-d", "--network", "none", "--stop-timeout", "0", "--name", "world", IMAGE, "sleep", "60")
        pid = out(tidy, "inspect", "-f", "{{.State.Pid}}", "world")
        tidy.in_network("ip", "link", "set", "labkit-w1", "netns", pid)
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
        tidy.in_network(*inside, "sh", "-c", "ip addr add 192.0.2.2/24 dev labkit-w1; ip link set labkit-w1 up")
        assert "1 packets received" in out(tidy, "run", "--rm", IMAGE, "ping", "-c", "1", "-W", "2", "192.0.2.2")
        rules = tidy.in_network("nft", "list", "ruleset").stdout.decode()
        assert re.search(r"ip saddr 172\.\S+ oifname != \S+ masquerade", rules)
    finally:
        tidy.in_network("ip", "link", "del", "labkit-w0")


def test_a_network_in_use_and_a_predefined_one_stay(tidy: Daemon, client: docker.DockerClient) -> None:
    out(tidy, "network", "create", "used")
    serve(tidy, "server", "--network", "used")
    for name in ("used", "bridge"):
        with pytest.raises(APIError) as caught:
            client.networks.list(names=[name])[0].remove()
        assert caught.value.status_code == 403


def test_nothing_of_a_network_is_left_when_it_is_removed(tidy: Daemon) -> None:
    out(tidy, "network", "create", "gone")
    bridge = f"labkit-{out(tidy, 'network', 'inspect', '-f', '{{.Id}}', 'gone')[:8]}"
    out(tidy, "run", "--rm", "--network", "gone", IMAGE, "true")
    assert tidy.in_network("ip", "link", "show", bridge).returncode == 0
    assert bridge.encode() in tidy.in_network("nft", "list", "ruleset").stdout
    out(tidy, "network", "rm", "gone")
    assert tidy.in_network("ip", "link", "show", bridge).returncode == 1
    assert bridge.encode() not in tidy.in_network("nft", "list", "ruleset").stdout


def _eventually(ask_for: object, *, timeout_s: float = 10.0) -> bytes:
    """Ask until there is an answer, and return it: what listens in a container needs a moment to start."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        said = ask_for()  # type: ignore[operator]
        if said or time.monotonic() > deadline_s:
            return bytes(said)
        time.sleep(0.1)
