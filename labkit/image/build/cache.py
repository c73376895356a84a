"""The build cache: results of instructions, found again by what went into them, and the reason when they are not.

The key of a step is a hash of four things::

    the image below it   (the digest of its configuration, which names its layers)
    the instruction      (variables replaced)
    the variables        (build arguments that a RUN sees)
    the inputs           (path and checksum of each file that COPY takes)

If a record with this key exists, the step was done before, and its layer is taken from the store. If not, the records tell why: the
one that shares most with this step is looked up, and the difference is said: *app.py changed*. A step whose parent changed is a miss
even if it says the same, unless the parent came out the same after all.

A record is a small file. The layer it names is kept by a pin of the store, until ``labkit image prune --build-cache``.

Leaves out: caches that several machines share; a limit in bytes.
See: dockerfile(5); "Build cache" in Docker's manual.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.image.descriptor import Descriptor
from labkit.image.jsontext import canonical
from labkit.image.layer import Layer
from labkit.image.names import BUILD_CACHE
from labkit.image.store import ImageStore

__all__ = ["Cache", "Question", "Record", "cache_folder"]

_NAMES_SHOWN = 3
#: Older records are forgotten when there are more.
_MOST_RECORDS = 5_000


@dataclass(frozen=True, slots=True)
class Question:
    """A step before it is done: all that its result depends on. ``parent`` is the image below, by id."""

    parent: str
    instruction: str
    variables: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name of the record: a hash of everything."""
        return hashlib.sha256(canonical(self.to_dict())).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "parent": self.parent,
            "instruction": self.instruction,
            "variables": dict(self.variables),
            "inputs": dict(self.inputs),
        }


@dataclass(frozen=True, slots=True)
class Record:
    """A step that was done: the question, and the layer it made (None: it changed only the configuration)."""

    question: Question
    created: str = ""
    layer: Layer | None = None
    elapsed_s: float = 0.0


class Cache:
    """The records of one store."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self.folder = cache_folder(store)
        self._all: list[Record] | None = None

    def find(self, question: Question) -> tuple[Record | None, str]:
        """Return the record that answers ``question``, or None and in words why there is none."""
        record = self._read(self.folder / f"{question.key}.json")
        if record is None:
            return None, self._explain(question)
        if record.layer is not None and not self._store.blobs.has(record.layer.descriptor.digest):
            return None, "its layer has been pruned"
        return record, ""

    def keep(self, record: Record, manifest: Descriptor | None) -> None:
        """Keep the result of a step; ``manifest`` is the image up to it, which the pin keeps whole."""
        if manifest is not None:
            self._store.pins.set(BUILD_CACHE, record.question.key, [manifest])
        document = {
            "question": record.question.to_dict(),
            "created": record.created,
            "layer": _layer_to_dict(record.layer),
            "elapsed_s": round(record.elapsed_s, 3),
        }
        path = self.folder / f"{record.question.key}.json"
        beside = self.folder / f".{path.name}-{secrets.token_hex(4)}"
        try:
            beside.write_text(json.dumps(document))
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """Yield all records, newest first."""
        with os.scandir(self.folder) as entries:
            found = sorted(
                ((entry.stat().st_mtime_ns, entry.path) for entry in entries if entry.name.endswith(".json")),
                reverse=True,
            )
        for number, (_, path) in enumerate(found):
            if number >= _MOST_RECORDS:
                Path(path).unlink(missing_ok=True)
            elif (record := self._read(Path(path))) is not None:
                yield record

    def clear(self) -> int:
        """Forget all records; return how many there were. What they kept goes with the next collection."""
        paths = list(self.folder.glob("*.json"))
        for path in paths:
            path.unlink(missing_ok=True)
        with self._store.blobs.lock.exclusive():
            self._store.pins.clear(BUILD_CACHE)
        return len(paths)

    def _read(self, path: Path) -> Record | None:
        try:
            document = json.loads(path.read_bytes())
            return Record(
                Question(**document["question"]), document["created"], _layer_from_dict(document["layer"]),
                document["elapsed_s"],
            )  # fmt: skip
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)  # damaged: a cache may forget
            return None

    def _explain(self, question: Question) -> str:
        """Return why nothing answers ``question``: its difference from the record that is nearest."""
        if self._all is None:
            self._all = list(self.records())
        same_place = [record.question for record in self._all if record.question.parent == question.parent]
        same_words = [record.question for record in self._all if record.question.instruction == question.instruction]
        both = next((found for found in same_place if found.instruction == question.instruction), None)
        if both is not None:
            return _difference(both, question)
        if same_words:
            return "a step before it changed"
        keyword = question.instruction.split()[0]
        other = next((found for found in same_place if found.instruction.split()[0] == keyword), None)
        if other is not None:
            return f"the instruction is new here; before it was {_short(other.instruction)}"
        return "it was not built before"


def cache_folder(store: ImageStore) -> Path:
    """Return the folder of the store's cache, made if need be."""
    folder = store.root / "build-cache"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _layer_to_dict(layer: Layer | None) -> dict[str, Any] | None:
    if layer is None:
        return None
    return {"descriptor": layer.descriptor.to_dict(), "diff_id": layer.diff_id, "size_bytes": layer.size_bytes}


def _layer_from_dict(document: dict[str, Any] | None) -> Layer | None:
    if document is None:
        return None
    return Layer(Descriptor.from_dict(document["descriptor"]), document["diff_id"], document["size_bytes"])


def _difference(before: Question, now: Question) -> str:
    changes = [
        f"{name} {word}"
        for old, new in [(before.inputs, now.inputs)]
        for name, word in [
            *((name, "changed") for name in new if name in old and new[name] != old[name]),
            *((name, "is new") for name in new if name not in old),
            *((name, "is gone") for name in old if name not in new),
        ]
    ]
    names = sorted({*before.variables, *now.variables})
    changes += [
        f"{name} is {now.variables.get(name, 'unset')!r}, not {before.variables.get(name, 'unset')!r}"
        for name in names
        if before.variables.get(name) != now.variables.get(name)
    ]
    more = f" and {len(changes) - _NAMES_SHOWN} more" if len(changes) > _NAMES_SHOWN else ""
    return ", ".join(changes[:_NAMES_SHOWN]) + more


def _short(text: str) -> str:
    return text if len(text) <= 50 else f"{text[:49]}…"
