"""Where a container's files live is read through the API, and agrees with what lies on the host."""

from __future__ import annotations

from pathlib import Path

import docker

from labkit.engine.whereabouts import look
from tests.engine.support import IMAGE
from tests.support import requires

pytestmark = requires("userns", "overlay-userns", "program:busybox", "pyseccomp")

PATHS = {"layer": "/note", "bind": "/bind/note", "tmpfs": "/memory/note"}


def test_files_are_read_where_they_are_and_nothing_where_they_are_not(
    client: docker.DockerClient, folder: Path
) -> None:
    folder.chmod(0o777)
    (folder / "note").write_text("from the host\n")
    container = client.containers.run(
        IMAGE, ["sh", "-c", "echo mine > /note; exec sleep 60"], detach=True, name="labkit-places", tmpfs={"/memory": ""},
        mounts=[docker.types.Mount("/bind", str(folder), type="bind")], stop_signal="KILL",
    )  # fmt: skip
    container.exec_run(["true"])
    seen = look(client, "labkit-places", PATHS)  # type: ignore[arg-type]
    assert (seen.state, [place.content for place in seen.places]) == ("running", ["mine", "from the host", ""])
    container.kill()
    container.wait()
    assert [place.content for place in look(client, "labkit-places", PATHS).places] == ["", "", ""]  # type: ignore[arg-type]
    assert look(client, "labkit-nobody", PATHS).state == "none"  # type: ignore[arg-type]
