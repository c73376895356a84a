"""Virtual machines beside containers: which parts each program brings along, and which there is only one of.

Leaves out: micro VMs and sandboxes that sit between the two.
See: lessons 02 and 07.
"""

from __future__ import annotations

from labkit.charts.drawings.sheet import Sheet

__all__ = ["draw"]

_ALT = """Two stacks on the same hardware. Left, three virtual machines: each has its program, its files and libraries, a guest kernel of its
own and a hypervisor process with virtual devices; below them lies the one host kernel. Right, three containers: each has its program, and its
files and libraries; below them lies directly the one Linux kernel, with namespaces and cgroups around each container."""


def draw() -> Sheet:
    """Return the picture."""
    sheet = Sheet(
        width=860, height=478, title="A virtual machine brings a kernel; a container brings files only", alt=_ALT
    )
    for left, heading in ((20, "three virtual machines"), (450, "three containers")):
        sheet.write((left, 62), heading, size=14, bold=True)
        sheet.box(left, 420, 390, 40, "hardware", concept="peer")
    for number in range(3):
        _machine(sheet, 20 + number * 132, "ABC"[number])
        _container(sheet, 450 + number * 132, "ABC"[number])
    sheet.box(20, 366, 390, 46, "host kernel (Linux, with KVM)", concept="host")
    sheet.box(
        450,
        324,
        390,
        88,
        "one Linux kernel",
        concept="host",
        note="namespaces: what each container sees\ncgroups: what each may use",
    )
    return sheet


def _machine(sheet: Sheet, left: float, name: str) -> None:
    sheet.box(left, 76, 126, 282, concept="vm")
    for top, height, text, note, concept in (
        (84, 40, f"program {name}", "", "process"),
        (130, 52, "files", "libraries, tools", "plain"),
        (188, 56, "guest kernel", "one for each", "host"),
        (250, 50, "virtual devices", "", "plain"),
        (306, 44, "hypervisor", "QEMU", "process"),
    ):
        sheet.box(left + 6, top, 114, height, text.replace("virtual ", "virtual\n"), note=note, concept=concept)


def _container(sheet: Sheet, left: float, name: str) -> None:
    sheet.box(left, 202, 126, 114, concept="container")
    sheet.box(left + 6, 210, 114, 40, f"program {name}", concept="process")
    sheet.box(left + 6, 256, 114, 52, "files", note="libraries, tools")
