"""The live view pulls what is ticked, one image a frame, stops by itself, and takes its store along when it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import InvalidSpec
from labkit.image.registry import RegistryServer, RegistrySettings
from labkit.measure.scratch import PREFIX
from labkit.widgets import LiveView
from labkit.widgets.transfer_view import transfer_view
from tests.image.registry.wire import Wire, blob, image
from tests.widgets.test_race_view import parts, run_to_end


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry with two images that share a layer of 100 000 bytes."""
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    base = blob(100_000)
    with RegistryServer(tmp_path / "r", RegistrySettings(port=0)) as server:
        wire = Wire(server.address)
        wire.push_image("alice/base", "1", base)
        manifest, blobs = image(base, blob(1000))
        for data in blobs:
            wire.push("alice/web", data)
        wire.put("alice/web", "1", manifest)
        yield server.address
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def view(address: str) -> Iterator[LiveView[Any]]:
    made = transfer_view([f"{address}/alice/base:1", f"{address}/alice/web:1"], most_bytes=200_000)
    yield made
    made.close()


def journeys(view: LiveView[Any]) -> list[tuple[str, int]]:
    return [(journey.name, journey.spared_bytes) for journey in view._take().journeys]


def test_nothing_is_pulled_before_it_starts(view: LiveView[Any]) -> None:
    assert view.sentence == "Nothing has been pulled yet."
    assert journeys(view) == []


def test_each_ticked_image_is_pulled_once_a_start_and_layers_travel_once(view: LiveView[Any]) -> None:
    run_to_end(view)
    assert journeys(view) == [("alice/base:1", 0), ("alice/web:1", 100_000)]
    assert "All that was ticked has been pulled" in parts(view.widget, "HTML")[0].value
    assert "alice/web:1" in view.sentence
    base, web, _ = parts(view.widget, "Checkbox")
    assert (base.description, web.description) == ("alice/base", "alice/web")
    base.value = False
    run_to_end(view)
    assert [name for name, _ in journeys(view)][2:] == ["alice/web:1"]
    assert journeys(view)[2][1] > 100_000


def test_it_can_begin_with_an_empty_store(view: LiveView[Any]) -> None:
    run_to_end(view)
    base, _, forget = parts(view.widget, "Checkbox")
    base.value, forget.value = False, True
    run_to_end(view)
    assert journeys(view) == [("alice/web:1", 0)]


def test_what_fails_is_said_and_stops_the_view(address: str) -> None:
    view = transfer_view([f"{address}/alice/gone:1"])
    run_to_end(view)
    assert "name unknown" in parts(view.widget, "HTML")[0].value
    view.close()


def test_closing_takes_the_store_along(view: LiveView[Any], tmp_path: Path) -> None:
    run_to_end(view)
    assert list(tmp_path.glob(f"{PREFIX}*"))
    view.close()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_without_names_there_is_no_view() -> None:
    with pytest.raises(InvalidSpec, match="nothing to pull"):
        transfer_view([])
