"""Layers under OverlayFS, file by file: what the container sees, and which layer it comes from; copy-up and whiteout.

The files are those of lesson 05.

Leaves out: opaque folders, metadata-only copy-up.
See: overlayfs.rst in the kernel's documentation; lessons 05 and 09.
"""

from __future__ import annotations

from labkit.charts.drawings.sheet import Sheet

__all__ = ["draw"]

_ALT = """A grid of four files and four rows. The container sees the top row, merged. /etc/motd comes from the lower layer site, which covers the one
in base. /var/big was changed: it is copied up from base to the upper layer, and the copy is seen. /srv/old was deleted: a whiteout in the upper layer
hides the one in site, so that nothing is seen. /data/a was not touched and comes from base. The two lower layers are only read; only the upper one is
written to."""
_FILES = ("/etc/motd", "/var/big", "/srv/old", "/data/a")
_TOPS = {"merged": 84, "upper": 188, "site": 284, "base": 370}
_CELLS = {
    ("upper", "/var/big"): "changed copy", ("upper", "/srv/old"): "whiteout",
    ("site", "/etc/motd"): "welcome", ("site", "/srv/old"): "a relic",
    ("base", "/etc/motd"): "hello", ("base", "/var/big"): "1 MiB", ("base", "/data/a"): "apple",
    ("merged", "/etc/motd"): "welcome", ("merged", "/var/big"): "changed copy", ("merged", "/data/a"): "apple",
}  # fmt: skip
_ROWS = (
    ("merged", "merged", "what the container sees", "process"),
    ("upper", "upper layer", "takes what is written", "container"),
    ("site", "lower layer site", "only read, shared", "host"),
    ("base", "lower layer base", "only read, shared", "host"),
)


def draw() -> Sheet:
    """Return the picture."""
    sheet = Sheet(width=860, height=450, title="Each file comes from the topmost layer that has it", alt=_ALT)
    for row, name, note, concept in _ROWS:
        sheet.box(20, _TOPS[row], 820, 64, concept=concept)
        sheet.write((34, _TOPS[row] + 28), name, size=14, bold=True, on=concept, room=175)
        sheet.write((34, _TOPS[row] + 48), note, on=concept, room=175)
    for file in _FILES:
        sheet.write((_middle(file), 74), file, size=13, bold=True, align="middle", room=150)
    for (row, file), text in _CELLS.items():
        sheet.box(_middle(file) - 66, _TOPS[row] + 12, 132, 40, note=text, dashed=text == "whiteout")
    sheet.write((_middle("/srv/old"), _TOPS["merged"] + 36), "no such file", align="middle", on="process", room=132)
    for file, source in (("/etc/motd", "site"), ("/var/big", "upper"), ("/srv/old", "upper"), ("/data/a", "base")):
        stop = "no such file" if file == "/srv/old" else ""
        sheet.arrow((_middle(file), _TOPS[source] + 12), (_middle(file), _TOPS["merged"] + (44 if stop else 54)))
    x = _middle("/var/big") + 40
    sheet.arrow((x, _TOPS["base"] + 12), (x, _TOPS["upper"] + 54), concept="container", dashed=True)
    sheet.write((x + 6, 275), "copy-up", room=80)
    return sheet


def _middle(file: str) -> float:
    """Return the x of the middle of a file's column."""
    return 296 + 155 * _FILES.index(file)
