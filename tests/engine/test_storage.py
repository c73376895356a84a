"""Where a container's mounts come from is looked up once: what is at that path later is not mounted."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from labkit.engine.objects.rootview import RootViews
from labkit.engine.objects.storage import Storage
from labkit.engine.spec.mounts import MountPoint
from tests.support import requires

pytestmark = requires("userns")


class NoVolumes:
    """Stands in for volumes where there are none."""


def test_a_bind_source_that_is_swapped_after_it_was_found_is_not_mounted(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    storage = Storage(NoVolumes(), RootViews(str(tmp_path / "stage")))  # type: ignore[arg-type]
    with ExitStack() as held:
        source = storage.open_sources([MountPoint("bind", "/v", source=str(good))], held)["/v"]
        good.rename(tmp_path / "elsewhere")
        good.symlink_to(bad)
        assert (good / "name").read_text() == "bad"
        assert Path(source, "name").read_text() == "good"
