"""Moving a running machine: it is the same one afterwards, in another process, and its counter misses no beat."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from labkit.vm.guest import Guest
from tests.support import requires

pytestmark = requires("vm")
_COUNTER = "i=0; while usleep 10000; do i=$((i+1)); echo $i; done > /dev/console &"


def test_a_counter_goes_on_through_two_moves_and_misses_no_beat() -> None:
    with Guest() as guest:
        guest.exec(["sh", "-c", _COUNTER])
        first_console = guest.console
        first_console.wait_for("\n5", 30)
        first_pid = guest.pid
        moves = [guest.migrate(), guest.migrate()]
        last_console = guest.console
        seen = last_console.wait_for("\n", 30)
        assert seen is not None
        assert guest.pid != first_pid
        assert not Path(f"/proc/{first_pid}").exists()
        guest.exec(["killall", "sh"])
        assert guest.exec(["cat", "/proc/uptime"]).status == 0
        for move in moves:
            assert 0 <= move.downtime_s <= move.total_s
            assert move.downtime_s < 5
            assert move.transferred_bytes > 20 << 20
            assert move.rounds >= 1
        numbers = [int(word) for word in first_console.text.split() if word.isdigit()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_command_under_way_in_another_thread_moves_along() -> None:
    with Guest() as guest:
        texts: list[str] = []
        script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.2; done; cat"
        thread = threading.Thread(
            target=lambda: texts.append(guest.exec(["sh", "-c", script], stdin=b"end", timeout_s=60).text)
        )
        thread.start()
        while (
            "usleep" not in guest.exec(["ps"]).text and thread.is_alive() and "sleep 0.2" not in guest.exec(["ps"]).text
        ):
            pass
        guest.migrate()
        thread.join()
    assert texts == ["".join(f"{number}\n" for number in range(1, 11)) + "end"]


def test_a_paused_machine_moves_and_stays_paused() -> None:
    with Guest() as guest:
        guest.exec(["sh", "-c", "echo here > /tmp/note"])
        guest.pause()
        guest.migrate()
        assert guest.state == "paused"
        assert guest.qmp.execute("query-status")["running"] is False
        guest.resume()
        assert guest.exec(["cat", "/tmp/note"]).text == "here\n"
        assert len([fd for fd in os.listdir(f"/proc/{guest.pid}/fd")]) < 40
