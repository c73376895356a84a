"""The daemon and its objects: who speaks to whom when one types ``docker run``, and what the daemon keeps.

Names of both engines stand in the boxes: Docker's, and labkit's where they differ.

Leaves out: BuildKit, plugins, swarm.
See: Docker Engine API; lesson 08.
"""

from __future__ import annotations

from labkit.charts.drawings.sheet import Sheet

__all__ = ["draw"]

_ALT = """A client, the docker command or the Python SDK, sends HTTP requests over a unix socket to the daemon, dockerd or labkit's engine. The daemon
keeps four kinds of objects: images, containers, networks, volumes. To start a container it asks the runtime, containerd and runc or labkit.container.
The runtime makes the container and is done. A small process, the shim or labkit's keeper, is the parent of the container's process, PID 1, and passes
its output and its exit status on; so client and daemon may come and go."""
_OBJECTS = (
    ("images", "layers and a config, never changed"),
    ("containers", "image, writable layer, settings"),
    ("networks", "a bridge, addresses, names"),
    ("volumes", "folders that outlive containers"),
)


def draw() -> Sheet:
    """Return the picture."""
    sheet = Sheet(width=860, height=440, title="Client, daemon, runtime: who does what in a docker run", alt=_ALT)
    client = sheet.box(20, 112, 180, 84, "client", concept="process", note="docker, Python SDK:\nwords to requests")
    daemon = sheet.box(
        330, 60, 510, 188, "daemon", concept="host", note="dockerd, here labkit's engine: keeps objects", top=True
    )
    for number, (name, what) in enumerate(_OBJECTS):
        x, y = 342 + (number % 2) * 246, 118 + (number // 2) * 64
        sheet.box(x, y, 240, 56, name, note=what)
    sheet.arrow(client.side("right"), (daemon.x, 154), both=True)
    sheet.write((265, 128), "HTTP over a", align="middle", room=120)
    sheet.write((265, 144), "unix socket", align="middle", room=120)
    runtime = sheet.box(
        330, 314, 180, 84, "runtime", concept="process", note="containerd and runc,\nhere labkit.container"
    )
    keeper = sheet.box(570, 284, 270, 50, "shim", concept="process", note="containerd-shim, here the keeper")
    box = sheet.box(570, 376, 270, 50, "container", concept="container", note="the program is PID 1 in it")
    sheet.arrow((420, daemon.bottom), runtime.side("top"))
    sheet.write((408, 286), "make one", align="end", room=90)
    sheet.arrow((runtime.right, 380), (540, 380), (540, 401), (box.x, 401))
    sheet.write((518, 370), "clone3", room=60)
    sheet.arrow(keeper.side("bottom"), box.side("top"))
    sheet.write((714, 360), "is its parent, waits", room=130)
    sheet.arrow(keeper.side("top"), (705, daemon.bottom))
    sheet.write((714, 270), "output, exit status", room=125)
    return sheet
