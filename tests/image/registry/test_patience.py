"""A reader's limits: silence, slowness, the whole; and the descriptor that outlives its socket object."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from labkit.image.registry.patience import Pace, PatientReader


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def drip(far: socket.socket, *, pause_s: float, times: int) -> threading.Thread:
    """Send a byte now and then, in a thread."""

    def work() -> None:
        try:
            for _ in range(times):
                far.sendall(b"x")
                time.sleep(pause_s)
        except OSError:
            return

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def read_to_the_end(reader: PatientReader) -> float:
    """Read until the reader has had enough; return after how many seconds."""
    begun_s = time.monotonic()
    with pytest.raises(TimeoutError):
        while reader.read(1):
            pass
    return time.monotonic() - begun_s


def test_silence_ends_it(pair: tuple[socket.socket, socket.socket]) -> None:
    with PatientReader(pair[0], Pace(silence_s=0.1, grace_s=60)) as reader:
        assert 0.05 < read_to_the_end(reader) < 5


def test_a_byte_now_and_then_does_not_help_past_the_grace(pair: tuple[socket.socket, socket.socket]) -> None:
    thread = drip(pair[1], pause_s=0.02, times=100)
    with PatientReader(pair[0], Pace(silence_s=5, grace_s=0.3)) as reader:
        assert 0.25 < read_to_the_end(reader) < 5
    pair[0].shutdown(socket.SHUT_RDWR)
    thread.join()


def test_who_keeps_the_pace_may_take_as_long_as_it_takes(pair: tuple[socket.socket, socket.socket]) -> None:
    thread = drip(pair[1], pause_s=0.02, times=50)
    with PatientReader(pair[0], Pace(silence_s=5, grace_s=0.5, least_bytes_per_s=5)) as reader:
        assert sum(len(reader.read(1) or b"") for _ in range(50)) == 50
    thread.join()


def test_a_new_message_begins_with_a_new_grace(pair: tuple[socket.socket, socket.socket]) -> None:
    with PatientReader(pair[0], Pace(silence_s=5, grace_s=0.1)) as reader:
        time.sleep(0.15)
        reader.keep(Pace(silence_s=5, grace_s=5))
        pair[1].sendall(b"y")
        assert reader.read(1) == b"y"


def test_bytes_are_counted_and_the_end_is_an_empty_read(pair: tuple[socket.socket, socket.socket]) -> None:
    counts: list[int] = []
    reader = PatientReader(pair[0], Pace(5, 5), count=counts.append)
    pair[1].sendall(b"z" * 1000)
    pair[1].shutdown(socket.SHUT_WR)
    with io.BufferedReader(reader, 64) as stream:
        assert stream.read() == b"z" * 1000
    assert sum(counts) == 1000


def test_the_descriptor_stays_open_until_the_reader_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    reader = PatientReader(pair[0], Pace(5, 5))
    pair[0].close()
    pair[1].sendall(b"still here")
    assert reader.read(100) == b"still here"
    reader.close()
    reader.close()
    with pytest.raises(OSError):
        pair[1].sendall(b"x" * 10_000_000)
