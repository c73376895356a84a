"""The two mechanisms of the kernel that containers are made of: namespaces for what is seen, cgroups for what is used.

Leaves out: root filesystem, capabilities and filter, the other pieces (lesson 06).
See: namespaces(7), cgroups(7); lessons 03 and 04.
"""

from __future__ import annotations

from labkit.charts.drawings.sheet import Sheet

__all__ = ["draw"]

_ALT = """A process stands in the middle. On the left are the eight kinds of namespace, which decide what it can see: UTS, the host name; PID, the
processes; mount, the file tree; network, interfaces and ports; IPC, shared memory; user, the ids; cgroup, its place in the tree of groups; time,
the clocks since boot. On the right are the controllers of cgroups, which decide what it can use: cpu, memory, pids, io. The kernel below does both."""
_KINDS = (
    ("UTS", "the host name"), ("PID", "the processes"), ("mount", "the file tree"), ("network", "interfaces, ports"),
    ("IPC", "shared memory"), ("user", "user and group ids"), ("cgroup", "its place among groups"), ("time", "clocks since boot"),
)  # fmt: skip
_CONTROLLERS = (
    ("cpu", "share, and at most so much a period", "cpu.weight, cpu.max"),
    ("memory", "at the limit a process is killed", "memory.max"),
    ("pids", "at the limit fork fails", "pids.max"),
    ("io", "bytes a second", "io.max"),
)


def draw() -> Sheet:
    """Return the picture."""
    sheet = Sheet(
        width=860, height=424, title="Two mechanisms of the kernel: what a process sees, and what it uses", alt=_ALT
    )
    sheet.box(20, 52, 300, 296, "namespaces", concept="namespace", top=True, dashed=True)
    for number, (kind, separates) in enumerate(_KINDS):
        y = 99 + number * 30
        sheet.write((34, y), kind, size=13, bold=True, on="namespace", room=80)
        sheet.write((116, y), separates, size=13, on="namespace", room=195)
    process = sheet.box(374, 150, 112, 100, "process", concept="process", note="an ordinary one:\nno other kernel")
    sheet.box(540, 52, 300, 296, "cgroups", concept="container", top=True)
    for number, (name, does, file) in enumerate(_CONTROLLERS):
        y = 99 + number * 62
        sheet.write((554, y), name, size=13, bold=True, on="container", room=70)
        sheet.write((622, y), file, size=13, on="container", room=210)
        sheet.write((554, y + 19), does, on="container", room=280)
    sheet.write((347, 130), "sees", size=13, align="middle")
    sheet.write((513, 130), "uses", size=13, align="middle")
    sheet.arrow(process.side("left"), (322, 200))
    sheet.arrow(process.side("right"), (538, 200))
    kernel = sheet.box(20, 368, 820, 42, "one Linux kernel keeps the lists and counts the use", concept="host")
    sheet.arrow(process.side("bottom"), kernel.side("top"), both=True)
    sheet.write((440, 320), "system calls", size=13, room=96)
    return sheet
