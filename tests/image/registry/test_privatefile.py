"""A file of secrets that is changed by one at a time and seen whole by everybody else."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from labkit.image.registry.privatefile import changing


def test_changes_at_the_same_time_all_arrive_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secrets.json"

    def read() -> dict[str, Any]:
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def add(name: str) -> None:
        for number in range(5):
            with changing(path, read) as document:
                document[f"{name}{number}"] = number

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())) == 20
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text('{"a": "1"}')
    with pytest.raises(KeyError), changing(path, lambda: {"a": "1"}) as document:
        document["b"] = "2"
        del document["c"]
    assert path.read_text() == '{"a": "1"}'
