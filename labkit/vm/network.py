"""A network of guests: a switch that is a thread, and a cable for each guest that is a pair of sockets.

What a guest's network card sends arrives here as a datagram, one Ethernet frame each. The switch does what a real one does: it
remembers on which cable it saw which sender, passes a frame on to the cable where its receiver was seen last, and to all
others when it does not know. When a cable's buffer is full the frame is dropped; protocols above expect that.

The network has no door: nothing of it is an interface of the host, and no frame leaves the program. So it needs no rights.

Leaves out: a way to the host or the internet, VLANs, loops between switches.
See: IEEE 802.1D (learning bridge), ethernet frames in packet(7), unix(7) (datagrams), QEMU's -netdev socket.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
import threading
from collections import deque
from dataclasses import dataclass
from types import TracebackType

from labkit.errors import InvalidSpec, InvalidState
from labkit.linux.fds import pipe

__all__ = ["Frame", "Network", "mac_of"]

_MOST_FRAME_BYTES = 65536
_MOST_REMEMBERED = 1000
_BROADCAST_BIT = 1
_FULL = (errno.EAGAIN, errno.ENOBUFS)
_TRANSIENT = (*_FULL, errno.ECONNREFUSED, errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET)


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame that passed the switch: sender, receiver, kind of content (0x0800 is IPv4, 0x0806 ARP), length."""

    source: str
    destination: str
    ethertype: int
    size_bytes: int


class Network:
    """A switch for guests, as a context manager: ``with Network() as net, Guest(network=net) as one: ...``"""

    def __init__(self, subnet: str = "10.77.0.0/24") -> None:
        try:
            self.subnet = ipaddress.IPv4Network(subnet)
        except ValueError as error:
            raise InvalidSpec(f"{subnet!r} is no IPv4 network: {error}.") from error
        self._cables: dict[int, socket.socket] = {}
        self._seen_on: dict[bytes, int] = {}
        self._frames: deque[Frame] = deque(maxlen=_MOST_REMEMBERED)
        self._lock = threading.Lock()
        self._given = 0
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = pipe()
        self._thread: threading.Thread | None = None

    @property
    def frames(self) -> list[Frame]:
        """The last thousand frames that passed, oldest first."""
        with self._lock:
            return list(self._frames)

    def next_address(self) -> tuple[str, str]:
        """Return an unused MAC address and an IP address of the subnet with the length of its mask, as ``10.77.0.1/24``."""
        with self._lock:
            self._given += 1
            number = self._given
        if number >= self.subnet.num_addresses - 1:
            raise InvalidSpec(f"The network {self.subnet} is full: make a larger one.")
        return mac_of(number), f"{self.subnet[number]}/{self.subnet.prefixlen}"

    def plug_in(self) -> socket.socket:
        """Return the far end of a new cable, for a guest's QEMU; close it when QEMU has it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.settimeout(0)
        with self._lock:
            if self._thread is None:
                raise InvalidState("The network is not up: use it as `with Network() as net:`.")
            self._cables[ours.fileno()] = ours
            self._selector.register(ours, selectors.EVENT_READ)
        self._wake()
        return theirs

    def _switch(self) -> None:
        """Pass frames on until the network is closed."""
        while self._thread is not None:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake_r:
                    os.read(self._wake_r.number, 64)
                    continue
                with self._lock:
                    cable = self._cables.get(key.fd)
                    if cable is not None:
                        self._take_from(cable)

    def _take_from(self, cable: socket.socket) -> None:
        try:
            frame = cable.recv(_MOST_FRAME_BYTES)
        except OSError as error:
            if error.errno not in _TRANSIENT:
                raise
            return
        if len(frame) >= 14:
            self._forward(frame, cable)

    def _forward(self, frame: bytes, came_from: socket.socket) -> None:
        """Learn the sender's cable, and send the frame to its receiver's, or to all others."""
        destination, source = frame[:6], frame[6:12]
        self._frames.append(Frame(source.hex(":"), destination.hex(":"), int.from_bytes(frame[12:14]), len(frame)))
        self._seen_on[source] = came_from.fileno()
        known = None if destination[0] & _BROADCAST_BIT else self._cables.get(self._seen_on.get(destination, -1))
        for cable in [known] if known is not None else list(self._cables.values()):
            if cable is not came_from:
                try:
                    cable.send(frame)
                except OSError as error:
                    if error.errno not in _TRANSIENT:
                        raise
                    if error.errno not in _FULL:
                        self._take_out(cable)

    def _take_out(self, cable: socket.socket) -> None:
        """Remove a cable at whose other end nobody is any more: a socket of datagrams tells that only to who sends."""
        self._selector.unregister(cable)
        del self._cables[cable.fileno()]
        cable.close()

    def _wake(self) -> None:
        os.write(self._wake_w.number, b"\n")

    def __enter__(self) -> Network:
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._switch, name="labkit-network", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop the switch and take out all cables; safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._wake()
            thread.join()
        for cable in self._cables.values():
            cable.close()
        self._cables.clear()
        self._selector.close()
        self._wake_r.close()
        self._wake_w.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def mac_of(number: int) -> str:
    """Return the MAC address of card ``number``: QEMU's own prefix, and 24 bits."""
    return f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
