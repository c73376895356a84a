"""The log of a container: Docker's format, whole lines, rotation without loss at the seam."""

from __future__ import annotations

import json
from pathlib import Path

from labkit.engine.keeper.logfile import LogFile, LogPlace, timestamp
from labkit.engine.objects.logs import read


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_one_object_however_it_came(folder: Path) -> None:
    log = LogFile(LogPlace(str(folder / "log")))
    for piece in (b"he", b"llo\nwor", b"ld\n", b"rest"):
        log.write(1, piece)
    log.write(2, b"error\n")
    log.close()
    found = entries(folder / "log")
    assert [(entry["log"], entry["stream"]) for entry in found] == [
        ("hello\n", "stdout"),
        ("world\n", "stdout"),
        ("error\n", "stderr"),
        ("rest", "stdout"),
    ]
    assert all(len(entry["time"]) == len("2026-01-01T00:00:00.000000000Z") for entry in found)


def test_a_line_without_end_is_cut_into_pieces(folder: Path) -> None:
    log = LogFile(LogPlace(str(folder / "log")))
    log.write(1, b"x" * 40_000)
    log.close()
    assert [len(entry["log"]) for entry in entries(folder / "log")] == [16384, 16384, 7232]


def test_rotation_keeps_the_newest_and_reading_puts_the_files_together(folder: Path) -> None:
    log = LogFile(LogPlace(str(folder / "log"), max_bytes=2000, max_files=3))
    for number in range(200):
        log.write(1, f"{number}\n".encode())
    log.close()
    assert sorted(path.name for path in folder.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 2000 for path in folder.iterdir())
    numbers = [int(entry.data) for entry in read(str(folder / "log"), tail=None, streams=frozenset({1}))]
    assert numbers == list(range(numbers[0], 200))
    assert [int(entry.data) for entry in read(str(folder / "log"), tail=5, streams=frozenset({1}))] == list(
        range(195, 200)
    )


def test_bytes_that_are_no_text_stay_in_their_line(folder: Path) -> None:
    log = LogFile(LogPlace(str(folder / "log")))
    log.write(1, b'\xff\xfe"\\\x00\n\n')
    log.close()
    assert [entry["log"] for entry in entries(folder / "log")] == ['\ufffd\ufffd"\\\x00\n', "\n"]


def test_times_are_UTC_with_nanoseconds() -> None:
    assert timestamp(1_000_000_000_123_456_789) == "2001-09-09T01:46:40.123456789Z"
