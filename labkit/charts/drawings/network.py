"""A container network: two containers on a bridge, a third on another one, NAT to the world, a published port.

The names and addresses are those of lesson 10.

Leaves out: IPv6; overlay networks between machines; rootless engines' own network namespace.
See: veth(4), bridge(8), nft(8); lesson 10.
"""

from __future__ import annotations

from labkit.charts.drawings.sheet import Box, Sheet

__all__ = ["draw"]

_ALT = """Three containers, each in a network namespace of its own with an interface eth0. Cables, that is veth pairs, of web and shop end in the bridge of
the network front; a second cable of shop and one of db end in the bridge of the network back. A name server at 127.0.0.11 answers with the names of the
container's own networks only. From front a way leads through NAT to the machine's interface and the world; back is internal and has none. A packet filter
drops what would cross from front to back. A published port of the machine, 8080, leads to port 80 of web."""


def draw() -> Sheet:
    """Return the picture."""
    sheet = Sheet(width=860, height=470, title="Cables, switches and names: a container network", alt=_ALT)
    web = _container(sheet, 20, "web", ["eth0 10.77.1.2"])
    shop = _container(sheet, 320, "shop", ["eth0 10.77.1.3", "eth1 10.77.2.2"])
    db = _container(sheet, 620, "db", ["eth0 10.77.2.3"])
    front = sheet.box(20, 238, 400, 54, "bridge of front", concept="host", note="10.77.1.1, a switch made of software")
    back = sheet.box(500, 238, 340, 54, "bridge of back", concept="host", note="10.77.2.1, internal: no way out")
    for container, along, bridge in ((web, 0.5, front), (shop, 0.26, front), (shop, 0.88, back), (db, 0.5, back)):
        _cable(sheet, container, along, bridge.y)
    sheet.write((136, 212), "veth pair: a cable with two ends", room=215)
    sheet.write((460, 258), "filter", align="middle", room=70)
    sheet.write((460, 274), "drops", align="middle", room=70)
    world = sheet.box(20, 412, 820, 44, "the machine's interface, and the world", concept="peer")
    nat = sheet.box(20, 336, 190, 54, "NAT", concept="process", note="lends its address")
    port = sheet.box(230, 336, 190, 54, "published port", concept="process", note="8080 leads to web's 80")
    for box, far in ((nat, world.y), (port, front.bottom)):
        middle = box.x + box.width / 2
        sheet.arrow((middle, front.bottom if box is nat else world.y), (middle, box.y if box is nat else box.bottom))
        sheet.arrow((middle, box.bottom if box is nat else box.y), (middle, far))
    sheet.write((134, 318), "out", room=60)
    sheet.write((344, 318), "in", room=60)
    return sheet


def _container(sheet: Sheet, left: float, name: str, ends: list[str]) -> Box:
    made = sheet.box(left, 52, 220, 132, concept="container")
    sheet.write((left + 12, 76), name, size=14, bold=True, on="container", room=90)
    sheet.write((left + 12, 96), "a network namespace", on="container", room=200)
    sheet.write((left + 12, 114), "name server: 127.0.0.11", on="container", room=200)
    width = 208 if len(ends) == 1 else 101
    for number, end in enumerate(ends):
        sheet.box(left + 6 + number * (width + 6), 128, width, 44, note=end.replace(" ", "\n"))
    return made


def _cable(sheet: Sheet, container: Box, along: float, bridge_y: float) -> None:
    x = container.x + along * container.width
    sheet.arrow((x, 172), (x, bridge_y), concept="container", head=False)
