"""The picture of a layer stack says what the data says."""

from __future__ import annotations

from labkit.charts import Frames
from labkit.charts.layers import FILES, LayerChart, files_of, rows_of
from labkit.measure.layers import Entry, Layer, Stack


def file(path: str, text: str) -> Entry:
    """Return the entry of a small file."""
    return Entry(path, "file", 0o644, len(text), text)


BASE = Layer("base", writable=False, entries=(file("/etc/motd", "hello"), file("/data/a", "apple")))


def stack(name: str, *upper: Entry, seen: tuple[Entry, ...]) -> Stack:
    """Return the stack of one container on the base."""
    paths = tuple(dict.fromkeys(["/etc/motd", "/data", "/data/a", *(entry.path for entry in upper)]))
    return Stack(name, paths, (Layer("upper", writable=True, entries=upper), BASE), seen)


CHANGED = file("/etc/motd", "changed")
WHITEOUT = Entry("/data/a", "whiteout", 0, 0)
A = stack("A", CHANGED, WHITEOUT, seen=(CHANGED,))
B = stack("B", seen=BASE.entries)


def test_rows_go_from_what_is_seen_down_to_what_is_shared() -> None:
    rows = rows_of([A, B], ["/etc/motd", "/data/a"])
    assert [row.label for row in rows] == ["A sees", "A: upper", "B sees", "B: upper", "base (lower)"]
    assert rows[0].cells == (("changed", "container"), ("nothing", ""))
    assert rows[1].cells == (("changed", "container"), ("whiteout", "container"))
    assert rows[2].cells == (("hello", "host"), ("apple", "host"))
    assert rows[3].cells == (("", ""), ("", ""))
    assert rows[4].cells == (("hello", "host"), ("apple", "host"))


def test_a_folder_has_a_column_only_if_it_tells_something() -> None:
    assert files_of([A, B]) == ["/etc/motd", "/data/a"]
    opaque = Entry("/data", "opaque folder", 0o755, 0)
    assert files_of([stack("A", opaque, seen=(opaque,))]) == ["/etc/motd", "/data", "/data/a"]


def test_there_are_never_more_columns_than_fit() -> None:
    many = [file(f"/srv/{number}", "x") for number in range(2 * FILES)]
    assert len(files_of([stack("A", *many, seen=tuple(many))])) == FILES


def test_a_frame_shows_what_changed() -> None:
    chart = LayerChart(containers=2, lowers=1, title="A container writes only into its own upper layer")
    frames = Frames(chart, width_in=9.0, height_in=chart.height_in)
    before = frames.png([stack("A", seen=BASE.entries), B])
    after = frames.png([A, B])
    assert before.startswith(b"\x89PNG")
    assert after != before
    assert frames.png([stack("A", seen=BASE.entries), B]) == before
