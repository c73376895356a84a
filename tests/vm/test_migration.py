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
        consoles, moves, pids = [guest.console], [], [guest.pid]
        consoles[0].wait_for("\n5", 30)
        for _ in range(2):
            moves.append(guest.migrate())
            consoles.append(guest.console)
            pids.append(guest.pid)
            consoles[-1].wait_for("\n", 30)
        guest.exec(["killall", "sh"])
        assert len(set(pids)) == 3
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids[:2])
        for move in moves:
            assert 0 <= move.downtime_s <= move.total_s
            assert move.downtime_s < 5  # calm: 15 ms
            assert move.transferred_bytes > 20 << 20
            assert move.rounds >= 1
        # A line may begin on one console and end on the next: it is the same serial port, moved in the middle of a number.
        said = "".join(console.text for console in consoles)
        numbers = [int(line) for line in said.splitlines() if line.isdigit()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 10


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
        assert len(os.listdir(f"/proc/{guest.pid}/fd")) < 40
