"""The switch, with plain sockets in the place of guests; guests on it are booted once, at the end."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack

import pytest

from labkit.errors import InvalidSpec, InvalidState
from labkit.vm.guest import Guest
from labkit.vm.network import Network, mac_of
from tests.support import requires

_BROADCAST = b"\xff" * 6


def frame(destination: bytes, source: int, content: bytes = b"hello") -> bytes:
    return destination + bytes.fromhex(mac_of(source).replace(":", "")) + b"\x08\x00" + content


def receive(cable: socket.socket, timeout_s: float = 5.0) -> bytes | None:
    return cable.recv(65536) if select.select([cable], [], [], timeout_s)[0] else None


def test_an_unknown_receiver_is_looked_for_everywhere_and_a_known_one_alone_gets_its_frames() -> None:
    with Network() as net, ExitStack() as stack:
        one, two, three = (stack.enter_context(net.plug_in()) for _ in range(3))
        one.send(frame(_BROADCAST, 1))
        assert receive(two) == receive(three) == frame(_BROADCAST, 1)
        assert receive(one, 0.05) is None
        reply = frame(bytes.fromhex(mac_of(1).replace(":", "")), 2, b"reply")
        two.send(reply)
        assert receive(one) == reply
        assert receive(three, 0.05) is None
        seen = net.frames
    assert [(item.source, item.ethertype) for item in seen] == [(mac_of(1), 0x800), (mac_of(2), 0x800)]
    assert seen[0].destination == "ff:ff:ff:ff:ff:ff"


def test_a_full_cable_loses_frames_and_stops_nobody() -> None:
    with Network() as net, net.plug_in() as one, net.plug_in() as lazy, net.plug_in() as two:
        for _ in range(2000):
            one.send(frame(_BROADCAST, 1, bytes(1000)))
            assert receive(two) is not None
        assert receive(lazy) is not None


def test_a_guest_that_has_gone_is_taken_out() -> None:
    with Network() as net, net.plug_in() as one, net.plug_in() as two:
        with net.plug_in() as gone:
            one.send(frame(_BROADCAST, 1))
            assert receive(gone) is not None
            assert receive(two) is not None
        for _ in range(3):
            one.send(frame(_BROADCAST, 1))
            assert receive(two) is not None
        assert len(net._cables) == 2


def test_too_short_a_frame_is_dropped() -> None:
    with Network() as net, net.plug_in() as one, net.plug_in() as two:
        one.send(b"short")
        one.send(frame(_BROADCAST, 1))
        assert receive(two) == frame(_BROADCAST, 1)


def test_addresses_are_given_once_and_run_out() -> None:
    net = Network("10.0.0.0/29")
    given = [net.next_address() for _ in range(6)]
    assert given[0] == ("52:54:00:00:00:01", "10.0.0.1/29")
    assert len(set(given)) == 6
    with pytest.raises(InvalidSpec, match="is full"):
        net.next_address()
    net.close()
    with pytest.raises(InvalidSpec, match="no IPv4 network"):
        Network("somewhere")


def test_a_network_that_is_not_up_says_so() -> None:
    net = Network()
    with pytest.raises(InvalidState, match="not up"):
        net.plug_in()
    net.close()
    net.close()


@requires("vm")
def test_two_guests_reach_each_other_and_nobody_else_also_after_one_has_moved() -> None:
    with Network() as net, Guest(network=net) as one, Guest(network=net) as two:
        assert (one.address, two.address) == ("10.77.0.1", "10.77.0.2")
        assert one.exec(["ping", "-c", "1", "-w", "20", two.address]).status == 0
        assert any(item.ethertype == 0x800 and item.source == mac_of(1) for item in net.frames)
        one.migrate()
        two.exec(["sh", "-c", "echo from two | nc -l -p 7 &"])
        assert one.exec(["nc", "-w", "20", two.address, "7"], timeout_s=60).text == "from two\n"
        assert one.exec(["ip", "-o", "link"]).text.count("\n") == 2
