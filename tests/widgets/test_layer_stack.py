"""The layer stack runs what was chosen, says which layer changed, and follows what other cells do."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from labkit.container.container import Container
from labkit.errors import InvalidSpec
from labkit.measure.layers import writable_folder
from labkit.measure.rootfs import fill_rootfs
from labkit.widgets import LiveView
from labkit.widgets.layer_stack import OPERATIONS, layer_stack
from tests.support import requires

PATHS = ("/etc/motd", "/srv/page", "/srv/old", "/data/a")
FILES = {"/etc/motd": "welcome\n", "/srv/page": "a page\n", "/srv/old": "a relic\n", "/data/a": "apple\n"}


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[dict[str, Container]]:
    """Two running containers on one lower layer."""
    for part in (tmp_path, *tmp_path.parents[:2]):
        part.chmod(0o755)  # the container's root is another user
    base = tmp_path / "base"
    base.mkdir()
    fill_rootfs(base)
    for path, text in FILES.items():
        place = Path(f"{base}{path}")
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    with ExitStack() as stack:
        made = {}
        for name in "AB":
            writable = stack.enter_context(writable_folder(tmp_path / name))
            made[name] = stack.enter_context(Container(["/bin/sleep", "60"], rootfs=base, writable=writable))
            made[name].start()
        yield made


@pytest.fixture
def view(containers: dict[str, Container]) -> Iterator[LiveView[Any]]:
    """The view of both, not running."""
    made = layer_stack(containers, PATHS)
    yield made
    made.close()


def parts(widget: Any, kind: str) -> list[Any]:
    """Return the widgets of one kind below ``widget``, in order."""
    own = [widget] if type(widget).__name__ == kind else []
    return own + [part for child in getattr(widget, "children", ()) for part in parts(child, kind)]


def press_run(view: LiveView[Any], container: str, operation: str) -> str:
    """Choose, press Run as the page would, and return what the view said about it."""
    where, what = parts(view.widget, "Dropdown")
    where.value, what.value = container, operation
    next(button for button in parts(view.widget, "Button") if button.description == "Run").click()
    return html.unescape(parts(view.widget, "HTML")[0].value)


@requires("overlay-userns", "program:busybox")
def test_the_first_frame_is_there_and_says_what_it_shows(view: LiveView[Any]) -> None:
    assert view.png.startswith(b"\x89PNG")
    assert "A sees /etc/motd, /srv/page, /srv/old, /data/a; its upper layer holds nothing." in view.sentence
    assert repr(view) == "Live view: layer stack, file by file"


@requires("overlay-userns", "program:busybox")
def test_a_deletion_leaves_a_whiteout_and_nothing_else(view: LiveView[Any]) -> None:
    said = press_run(view, "A", "rm /srv/old")
    assert "a whiteout at /srv/old appeared" in said
    assert "no lower layer changed" in said
    assert "B sees what it saw" in said
    assert "/srv/old (whiteout)" in view.sentence


@requires("overlay-userns", "program:busybox")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_on_offer_works_and_spares_the_lower_layer(view: LiveView[Any], operation: str) -> None:
    said = press_run(view, "B", operation)
    assert said.split("`")[2].startswith((":", ", which printed 'welcome'")), said
    assert "no lower layer changed; A sees what it saw" in said


@requires("overlay-userns", "program:busybox")
def test_what_another_cell_does_is_seen_at_the_next_look(view: LiveView[Any], containers: dict[str, Container]) -> None:
    with containers["A"].exec(["/bin/sh", "-c", "echo x > /srv/mine"]) as process:
        process.wait(20)
    view.refresh()
    assert "/srv/mine (file)" in view.sentence


@requires("overlay-userns", "program:busybox")
def test_a_container_that_has_ended_is_said_and_not_raised(
    view: LiveView[Any], containers: dict[str, Container]
) -> None:
    containers["A"].kill()
    containers["A"].wait(10)
    assert "A did not run `cat /etc/motd`" in press_run(view, "A", "cat /etc/motd")


@requires("overlay-userns", "program:busybox")
def test_it_shows_only_containers_that_share_their_lower_layers(
    containers: dict[str, Container], tmp_path: Path
) -> None:
    with pytest.raises(InvalidSpec, match="same lower layers"):
        layer_stack({}, PATHS)
    other = Container(["/bin/true"], rootfs=tmp_path, writable=tmp_path)
    with pytest.raises(InvalidSpec, match="same lower layers"):
        layer_stack({**containers, "C": other}, PATHS)
