"""The network of the host: its loopback, its services, its interfaces, what passes by, and sockets that no namespace separates."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.canaries import granted, listening, process, said, sender, token
from tests.attacks.harness import Attack, Canary, Plain, always, is_root, try_attack
from tests.attacks.inside import abstract, libc, pids
from tests.attacks.kernels import SandboxedKernel, requires_sandbox

pytestmark = [requires_sandbox, pytest.mark.timeout(300)]
ONLY_ROOT = always("an ordinary user may not do that", for_root=False)


# -- programs --------------------------------------------------------------------------------------------------------


def connects(token: str, port: int, address: str) -> None:
    with socket.create_connection((address, port), timeout=2.0) as connected:
        connected.sendall(token.encode())


def sends_a_datagram(token: str, port: int, address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.sendto(token.encode(), (address, port))


def connects_to_an_abstract_address(token: str, name: str, **_: Any) -> None:
    with abstract(name) as connected:
        connected.sendall(token.encode())


def sends_to_an_abstract_address(token: str, name: str, **_: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.sendto(token.encode(), "\0" + name)


def lists_abstract_addresses() -> dict[str, Any]:
    with open("/proc/net/unix") as file:
        return {"text": file.read()}


def listens_to_everything() -> dict[str, Any]:
    import time

    heard = b""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        ear.settimeout(0.3)
        end_s = time.monotonic() + 1.0
        while time.monotonic() < end_s:
            try:
                heard += ear.recv(65536)
            except TimeoutError:
                continue
    return {"text": heard.decode(errors="replace")}


def listens_to_datagrams() -> dict[str, Any]:
    import time

    heard = b""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as ear:
        ear.settimeout(0.3)
        end_s = time.monotonic() + 1.0
        while time.monotonic() < end_s:
            try:
                heard += ear.recv(65536)
            except TimeoutError:
                continue
    return {"text": heard.decode(errors="replace")}


def enters_the_network_of(pid: int, name: str, token: str, **_: Any) -> None:
    for target in (pid, 1, os.getppid()):
        try:
            fd = os.open(f"/proc/{target}/ns/net", os.O_RDONLY)
        except OSError:
            continue
        if libc.setns(fd, 0x40000000) == 0:
            with abstract(name) as connected:
                connected.sendall(token.encode())
            return
    raise OSError(1, "setns")


def gives_an_interface_away(name: str, pid: int) -> dict[str, Any]:
    """Make a veth pair and put one end into the network of another process, by its number."""
    import subprocess

    def run(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            raise OSError(1, done.stderr.strip())

    run("link", "add", name, "type", "veth", "peer", f"{name}p")
    if pid:
        run("link", "set", name, "netns", str(pid))
    return {}


def lists_interfaces() -> dict[str, Any]:
    import glob

    names = [name for _, name in socket.if_nameindex()]
    names += [path.rsplit("/", 1)[1] for path in glob.glob("/sys/class/net/*")]
    return {"text": " ".join(names)}


def opens(family: int, kind: int, protocol: int) -> None:
    socket.socket(family, kind, protocol).close()


def asks_the_audit() -> None:
    with socket.socket(16, socket.SOCK_RAW, 9) as asking:
        asking.settimeout(1.0)
        asking.send((16).to_bytes(4, "little") + (1000).to_bytes(2, "little") + (1).to_bytes(2, "little") + bytes(8))
        answer = asking.recv(8192)
        if int.from_bytes(answer[4:6], "little") == 2:  # NLMSG_ERROR
            raise OSError(-int.from_bytes(answer[16:20], "little", signed=True) or 1, "audit")


def hears_of_processes(**_: Any) -> dict[str, Any]:
    """Order the events of all processes of the machine: who forks, who runs what. See: linux/cn_proc.h."""
    import time

    with socket.socket(16, socket.SOCK_DGRAM, 11) as ear:
        ear.bind((0, 1))  # CN_IDX_PROC
        order = (
            (1).to_bytes(4, "little") * 2 + bytes(8) + (4).to_bytes(2, "little") + bytes(2) + (1).to_bytes(4, "little")
        )
        ear.send((16 + len(order)).to_bytes(4, "little") + (3).to_bytes(2, "little") + bytes(10) + order)
        ear.settimeout(0.2)
        heard, end_s = [], time.monotonic() + 1.0
        while time.monotonic() < end_s:
            try:
                event = ear.recv(4096)
            except TimeoutError:
                continue
            heard += [int.from_bytes(event[at : at + 4], "little") for at in range(36, len(event) - 3, 4)]
    return {"pids": heard}


def sees_other_networks(pid: int, **_: Any) -> dict[str, Any]:
    texts = []
    for target in [*pids(), pid]:
        try:
            texts.append(open(f"/proc/{target}/net/tcp").read())
        except OSError:
            continue
    return {"text": " ".join(texts)}


# -- canaries ----------------------------------------------------------------------------------------------------------


def service(family: int, address: str, kind: int = socket.SOCK_STREAM) -> Any:
    return lambda *_: listening(family, (address, 0), kind, address=address)


def abstract_service(kind: int) -> Any:
    name = f"labkit-{secrets.token_hex(6)}"
    return lambda *_: listening(socket.AF_UNIX, "\0" + name, kind, name=name)


def own_address() -> str:
    """Return an address of this machine that others use, or the one of the loopback if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # nothing is sent: the kernel only chooses an address
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


@contextmanager
def listed_address(*_: Any) -> Iterator[Canary]:
    name = f"labkit-{secrets.token_hex(6)}"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("\0" + name)
        yield Canary({}, lambda answer: name in answer.get("text", ""))


@contextmanager
def traffic(*_: Any) -> Iterator[Canary]:
    """Datagrams with a secret on the host's loopback."""
    secret = token()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending,
        sender(lambda: sending.sendto(secret.encode(), ("127.0.0.1", 9))),
    ):
        yield Canary({}, lambda answer: secret in answer.get("text", ""))


@contextmanager
def a_free_port(*_: Any) -> Iterator[Canary]:
    """A port of the host that is free; reached if the host finds it taken while the program stays."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield Canary({"port": port}, lambda answer: granted(answer) and _is_taken(port))


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def holds_the_port(port: int) -> dict[str, Any]:
    service = socket.socket()
    service.bind(("127.0.0.1", port))
    service.listen()
    globals()["kept"] = service  # open until the program ends
    return {}


@contextmanager
def network_of_a_process(_: Any, folder: Path) -> Iterator[Canary]:
    name = f"labkit-{secrets.token_hex(6)}"
    with listening(socket.AF_UNIX, "\0" + name, name=name) as heard, process(folder) as target:
        yield Canary({"pid": target.arguments["pid"], **heard.arguments}, heard.reached)


@contextmanager
def an_interface(kernel: SandboxedKernel | None, _: Path) -> Iterator[Canary]:
    """A name; reached if the host has an interface of that name."""
    name = f"labkit{secrets.token_hex(3)}"
    path = Path(f"/sys/class/net/{name}")
    try:
        # Inside, PID 1 is the sandbox's own, and there is no number for a process of the host.
        yield Canary({"name": name, "pid": os.getpid() if kernel else 0}, lambda _: path.exists())
    finally:
        if path.exists():
            subprocess.run(["ip", "link", "delete", name], check=True)


@contextmanager
def interfaces(*_: Any) -> Iterator[Canary]:
    """Reached if the program sees an interface of the host that it cannot have itself."""
    names = {name for _, name in socket.if_nameindex()} - {
        "lo",
        "tunl0",
        "sit0",
        "ip6tnl0",
        "gre0",
        "gretap0",
        "erspan0",
    }
    yield Canary({}, lambda answer: bool(names & set(answer.get("text", "").split())))


@contextmanager
def processes_that_start(*_: Any) -> Iterator[Canary]:
    """Processes of the host that come and go; reached if the program learns the number of one of them."""
    started: list[int] = []

    def start() -> None:
        with subprocess.Popen(["true"]) as made:
            started.append(made.pid)

    with sender(start):
        yield Canary({}, lambda answer: bool(set(started) & set(answer.get("pids", ()))))


@contextmanager
def a_connection(_: Any, folder: Path) -> Iterator[Canary]:
    """A listening port of the host; reached if the program sees it in a list."""
    with socket.create_server(("127.0.0.1", 0)) as listener, process(folder) as target:
        port = f":{listener.getsockname()[1]:04X} 00000000:0000 0A"
        yield Canary(target.arguments, lambda answer: port in answer.get("text", ""))


def no_interfaces() -> str:
    """Return why there is no interface to be seen."""
    with interfaces() as canary:
        seen = {"errno": "", "text": " ".join(name for _, name in socket.if_nameindex())}
        return "" if canary.reached(seen) else "this machine has no interface but its loopback"


def no_ipv6() -> str:
    """Return why there is no IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return "this machine has no IPv6 loopback"
    return ""


def only_root_before_linux_6_6() -> str:
    """Return why an ordinary user does not hear of the processes of the machine."""
    version = tuple(int(part) for part in os.uname().release.split(".")[:2])
    return "" if is_root() or version >= (6, 6) else "before Linux 6.6 only root may"


def cannot_open(family: int, kind: int, protocol: int = 0) -> Any:
    """Return why such a socket cannot be opened on the host either."""

    def why() -> str:
        try:
            socket.socket(family, kind, protocol).close()
        except OSError as error:
            return f"this machine answers {error.strerror}"
        return ""

    return why


def sockets_of(title: str, family: int, kind: int, protocol: int = 0) -> Attack:
    arguments = {"family": family, "kind": kind, "protocol": protocol}
    return Attack(f"a socket of the kind {title}", opens, said(**arguments), cannot_open(family, kind, protocol))


STREAM, DGRAM, RAW = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
ATTACKS = (
    Attack("connect to a port of the loopback", connects, service(socket.AF_INET, "127.0.0.1")),
    Attack("connect to a port of the loopback, by another of its addresses", connects, service(socket.AF_INET, "127.9.9.9")),
    Attack("connect to a port of the loopback in IPv6", connects, service(socket.AF_INET6, "::1"), no_ipv6),
    Attack("connect to a port of the machine's own address", connects, service(socket.AF_INET, own_address())),
    Attack("send a datagram to the loopback", sends_a_datagram, service(socket.AF_INET, "127.0.0.1", DGRAM)),
    Attack("send a datagram to the machine's own address", sends_a_datagram, service(socket.AF_INET, own_address(), DGRAM)),
    Attack("connect to an abstract address", connects_to_an_abstract_address, abstract_service(STREAM)),
    Attack("send a datagram to an abstract address", sends_to_an_abstract_address, abstract_service(DGRAM)),
    Attack("list the abstract addresses", lists_abstract_addresses, listed_address),
    Attack("listen to all packets", listens_to_everything, traffic, ONLY_ROOT),
    Attack("listen to all datagrams", listens_to_datagrams, traffic, ONLY_ROOT),
    Attack("take a port of the host", holds_the_port, a_free_port),
    Attack("enter the network of the host", enters_the_network_of, network_of_a_process, ONLY_ROOT),
    Attack("put an interface into the network of the host", gives_an_interface_away, an_interface, ONLY_ROOT),
    Attack("list the interfaces of the host", lists_interfaces, interfaces, no_interfaces),
    Attack("list the connections of the host", sees_other_networks, a_connection),
    sockets_of("vsock, to the machine that this one runs on", 40, STREAM),
    sockets_of("vsock, datagrams", 40, DGRAM),
    Attack("ask for the state of the audit", asks_the_audit, said(), ONLY_ROOT),
    Attack("hear which processes the host starts", hears_of_processes, processes_that_start, only_root_before_linux_6_6),
    sockets_of("Bluetooth", 31, RAW, 1),
    sockets_of("CAN", 29, RAW, 1),
    sockets_of("RDS", 21, socket.SOCK_SEQPACKET),
    sockets_of("TIPC", 30, socket.SOCK_SEQPACKET),
    sockets_of("the kernel's own cryptography", 38, socket.SOCK_SEQPACKET),
    sockets_of("XDP", 44, RAW),
)  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_nothing_of_the_network_of_the_host_is_reached(attack: Attack, kernel: SandboxedKernel, tmp_path: Path) -> None:
    try_attack(attack, kernel, Plain(tmp_path), tmp_path)


def test_no_interface_of_the_sandbox_leads_out(kernel: SandboxedKernel) -> None:
    """Seen from the host by the system's own tool, in the network namespace of the kernel's process."""
    if not is_root():
        pytest.skip("an ordinary user may not look into another network namespace")
    pid = str(kernel.provisioner.pid)
    listed = subprocess.run(
        ["nsenter", "-t", pid, "-n", "ip", "-o", "route", "show", "table", "all"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in listed.stdout.splitlines() if " dev lo " not in line] == []
