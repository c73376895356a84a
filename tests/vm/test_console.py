"""The console's text: bounded, clean where a person reads it, waited for with a deadline."""

from __future__ import annotations

import threading
import time

import pytest

from labkit.errors import DeadlineExceeded, GuestError
from labkit.vm.console import MOST_BYTES, Console


def test_a_flood_keeps_the_newest_part_and_counts_all() -> None:
    console = Console()
    for number in range(100):
        console.feed(b"x" * 65536 + b"%d\n" % number)
    assert len(console.text) <= MOST_BYTES
    assert console.text.endswith("99\n")
    assert console.total_bytes == 100 * 65537 + 90 + 100


def test_the_tail_has_no_control_characters_and_no_endless_line() -> None:
    console = Console()
    console.feed(b"one\r\n\x1b[2J\x1b]0;title\x07two\xff\n" + b"y" * 5000)
    assert "\x1b" not in console.tail()
    assert "\x07" not in console.tail()
    assert max(map(len, console.tail().splitlines())) == 160
    assert console.tail(3).splitlines()[0] == "one"


def test_a_panic_is_found_with_its_reason() -> None:
    console = Console()
    assert console.panic() is None
    console.feed(b"[ 1.0] Kernel panic - not syncing: sysrq triggered crash\r\n[ 1.1] CPU: 0\r\n")
    assert console.panic() == "sysrq triggered crash"


def test_who_waits_gets_everything_up_to_the_text() -> None:
    console = Console()
    timer = threading.Timer(0.05, console.feed, [b"boot\nready\nmore"])
    timer.start()
    assert console.wait_for("ready", 10) == "boot\nready"
    timer.join()


def test_who_waits_in_vain_is_told() -> None:
    console = Console()
    started_s = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="did not come"):
        console.wait_for("never", 0.05)
    assert time.monotonic() - started_s < 5
    console.end()
    with pytest.raises(GuestError, match="ended before"):
        console.wait_for("never", 10)


def test_the_stream_gives_everything_once_and_ends_with_the_guest() -> None:
    console = Console()
    console.feed(b"a")
    stream = console.stream()
    assert next(stream) == "a"
    console.feed(b"bc")
    console.end()
    assert "".join(stream) == "bc"
    assert list(Console().stream(0.01)) == []


def test_a_slow_reader_of_a_flood_goes_on_with_what_is_kept() -> None:
    console = Console()
    console.feed(b"start")
    stream = console.stream()
    assert next(stream) == "start"
    console.feed(b"z" * (3 * MOST_BYTES))
    console.end()
    assert len("".join(stream)) == MOST_BYTES
