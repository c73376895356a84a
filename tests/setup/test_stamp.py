"""Stamps: same input, same key; a damaged file is no stamp; a killed write changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.setup.stamp import Stamps, key_of


@given(st.lists(st.text(), max_size=5), st.lists(st.text(), max_size=5))
def test_two_lists_of_inputs_share_a_key_only_if_they_are_the_same(first: list[str], second: list[str]) -> None:
    assert (key_of(*first) == key_of(*second)) == (first == second)


def test_an_input_that_moves_into_its_neighbour_changes_the_key() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")


def test_a_stamp_that_was_set_is_there_for_the_next_process(tmp_path: Path) -> None:
    Stamps(tmp_path / "stamps.json").set("packages", "1")
    Stamps(tmp_path / "stamps.json").set("level", "dev")
    assert json.loads((tmp_path / "stamps.json").read_text()) == {"packages": "1", "level": "dev"}
    assert [path.name for path in tmp_path.iterdir()] == ["stamps.json"]


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", '{"a": '])
def test_a_damaged_file_counts_as_no_stamps(tmp_path: Path, content: str) -> None:
    (tmp_path / "stamps.json").write_text(content)
    assert Stamps(tmp_path / "stamps.json").get("packages") == ""


def test_a_write_that_fails_leaves_the_old_stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = Stamps(tmp_path / "stamps.json")
    stamps.set("packages", "old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        stamps.set("packages", "new")
    assert Stamps(tmp_path / "stamps.json").get("packages") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["stamps.json"]
