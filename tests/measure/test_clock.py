from __future__ import annotations

import time

from labkit.measure.clock import now_ms, resolution_ms, time_ms


def test_the_clock_runs_forwards_in_milliseconds() -> None:
    began_ms, began_s = now_ms(), time.monotonic()
    time.sleep(0.02)
    elapsed_ms, elapsed_s = now_ms() - began_ms, time.monotonic() - began_s
    assert 20 <= elapsed_ms <= elapsed_s * 1e3 + 0.001


def test_an_action_is_timed_and_done_once() -> None:
    done = []
    assert time_ms(lambda: done.append(time.sleep(0.01))) >= 10
    assert len(done) == 1


def test_the_clock_is_finer_than_anything_that_is_measured() -> None:
    assert 0 < resolution_ms() < 0.1
