"""Stamps: what set-up has done already, and for which input, so that the second run only compares.

A stamp is a hash over everything that a step depends on. The file that holds the stamps is replaced as a whole
(write, then rename), so a set-up that is killed half-way leaves the old stamps and its steps run again.

Leaves out: packages that somebody removes from the environment by hand; ``labkit setup --again`` repairs that.
See: rename(2).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

__all__ = ["Stamps", "key_of"]


def key_of(*inputs: str | bytes) -> str:
    """Return a hash of ``inputs`` that changes whenever one of them does, or moves into its neighbour."""
    digest = hashlib.sha256()
    for data in inputs:
        encoded = data.encode() if isinstance(data, str) else data
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


class Stamps:
    """The stamps in one JSON file; a damaged or missing file counts as no stamps at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, str] = {}
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        if isinstance(values, dict):
            self._values = {str(name): str(value) for name, value in values.items()}

    def get(self, name: str) -> str:
        """Return the stamp of ``name``, or an empty string."""
        return self._values.get(name, "")

    def set(self, name: str, value: str) -> None:
        """Record ``value`` for ``name`` on disk. Raises: OSError where the folder cannot be written."""
        self._values[name] = value
        new_path = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            new_path.write_text(json.dumps(self._values, indent=1, sort_keys=True) + "\n")
            new_path.replace(self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                new_path.unlink()
