"""What a transfer is said to have moved is what a byte counter between the two saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labkit.image import ImageStore
from labkit.image.registry import RegistryServer, RegistrySettings
from labkit.measure.transfers import Journey, Ledger, measure_pull, measure_push
from tests.image.registry.test_push import _between, put_image
from tests.image.registry.wire import Wire, blob

JOURNEY = Journey("alice/web:1", "pull", 10, 20, 30, 70, 5, 1.5)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))


def test_a_ledger_adds_up_and_can_be_kept() -> None:
    ledger = Ledger().with_journey(JOURNEY).with_journey(JOURNEY)
    assert (JOURNEY.total_bytes, JOURNEY.spared_bytes) == (60, 50)
    assert (ledger.moved_bytes, ledger.spared_bytes) == (20, 100)
    assert Ledger.from_json(json.loads(json.dumps(ledger.to_json()))) == ledger


def test_what_is_said_to_travel_is_what_goes_through_the_wire(tmp_path: Path) -> None:
    passed = [0]

    def relay(source, target, counted: bool) -> None:  # type: ignore[no-untyped-def]
        try:
            while data := source.recv(65536):
                passed[0] += len(data)
                target.sendall(data)
        except OSError:
            return

    base, page = blob(500_000), blob(1000)
    store = ImageStore(tmp_path / "store")
    with RegistryServer(tmp_path / "r", RegistrySettings(port=0)) as server, _between(server.address, relay) as address:
        put_image(store, f"{address}/alice/base:1", base)
        put_image(store, f"{address}/alice/web:1", base, page)
        first = measure_push(f"{address}/alice/base:1", store)
        # Heads of requests are counted as they are written; a few are a little longer on the wire.
        assert passed[0] == pytest.approx(first.wire_bytes, rel=0.01)
        assert first.moved_bytes > 500_000
        second = measure_push(f"{address}/alice/web:1", store)
        assert (second.mounted_bytes, second.moved_bytes < 2000) == (500_000, True)
        other = ImageStore(tmp_path / "other")
        passed[0] = 0
        third = measure_pull(f"{address}/alice/web:1", other)
        assert passed[0] == pytest.approx(third.wire_bytes, rel=0.02)
        assert (third.way, third.name, third.spared_bytes) == ("pull", "alice/web:1", 0)
        assert third.moved_bytes == third.total_bytes == second.total_bytes
        fourth = measure_pull(f"{address}/alice/base:1", other)
        assert fourth.shared_bytes == 500_000
        assert fourth.requests <= 5
        assert Wire(server.address).ask("GET", "/v2/_catalog").json == {"repositories": ["alice/base", "alice/web"]}
