"""What all stages of one build share: the store, the context, the cache, and how the caller wants it.

See: `labkit.image.build.builder`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Literal

from labkit.errors import ImageError, InvalidSpec, LabkitError
from labkit.image.build.cache import Cache
from labkit.image.build.checksums import Checksums
from labkit.image.build.context import Context
from labkit.image.build.errors import BuildCancelled, BuildError
from labkit.image.build.items import Owner
from labkit.image.build.progress import Progress
from labkit.image.build.state import State, iso_time
from labkit.image.build.tree import Entry, Tree
from labkit.image.lock import hold_new_folder
from labkit.image.reference import Reference
from labkit.image.rootfs import remove_tree
from labkit.image.store import ImageStore

__all__ = ["FIXED_EPOCH_S", "Epoch", "Job", "Network", "Puller"]

Network = Literal["none", "host"]
#: Brings an image into the store; raises ImageError if nobody has it.
Puller = Callable[[Reference], object]
#: A time that all files are cut off at, or "now": the times as they are.
Epoch = int | Literal["now"]
#: The time that stands in images if nobody asks for another: the same everywhere.
FIXED_EPOCH_S = 0


@dataclass(slots=True)
class Job:
    """One build, as far as it is the same for all of its stages."""

    store: ImageStore
    context: Context
    cache: Cache
    checksums: Checksums
    owner_of: Callable[[Entry], Owner]
    progress: Progress
    cancel: Event
    network: Network = "none"
    no_cache: bool = False
    pull: bool = False
    puller: Puller | None = None
    epoch: Epoch = FIXED_EPOCH_S
    epoch_was_given: bool = False
    started_s: int = field(default_factory=lambda: int(time.time()))
    _lowers: dict[tuple[str, ...], list[Path]] = field(default_factory=dict)

    @property
    def epoch_s(self) -> int:
        """No file of a layer is newer than this."""
        return self.started_s if self.epoch == "now" else self.epoch

    @property
    def created(self) -> str:
        """The time that the image says it was made at."""
        return iso_time(self.epoch_s)

    @property
    def key_variables(self) -> dict[str, str]:
        """What a fixed time adds to the key of every step; a build that records its own time shares results with earlier ones."""
        return {} if self.epoch == "now" else {"SOURCE_DATE_EPOCH": str(self.epoch)}

    def check_cancelled(self) -> None:
        """Raises: BuildCancelled if the caller has asked for the end."""
        if self.cancel.is_set():
            raise BuildCancelled("The build was cancelled.")

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A folder of the store for one step; if this program is killed, the next collection finds it without an owner."""
        path, fd = hold_new_folder(self.store.blobs.tmp)
        with fd:
            # A container's root is another user than its maker, and must be able to pass.
            path.chmod(0o711)
            try:
                yield path
            finally:
                remove_tree(path)

    def lowers(self, state: State) -> list[Path]:
        """Return the folders of a state's layers, topmost first, unpacked if need be."""
        key = state.config.diff_ids
        if key not in self._lowers:
            self._lowers[key] = self.store.layers.lowers(state.manifest, state.config) if key else []
        return self._lowers[key]

    def tree(self, state: State) -> Tree:
        """Return the file tree of a state."""
        return Tree(self.lowers(state), layers=True)

    def image(self, name: str, *, line: int) -> State:
        """Return an image of the store, pulled if it is not there or ``pull`` asks for that.

        Raises: BuildError in Docker's words if nobody has it.
        """
        try:
            reference = Reference.parse(name)
        except InvalidSpec as error:
            raise BuildError(f"failed to parse image name {name!r}: {error}", line=line) from error
        if self.pull and self.puller is not None:
            self._pull(reference, line=line)
        try:
            return State.of(self.store.image(name))
        except ImageError as error:
            if self.puller is None:
                raise BuildError(_nobody_has(reference), line=line) from error
        self._pull(reference, line=line)
        return State.of(self.store.image(reference))

    def _pull(self, reference: Reference, *, line: int) -> None:
        if self.puller is None:
            return
        try:
            self.puller(reference)
        except LabkitError as error:
            raise BuildError(f"{_nobody_has(reference)} ({error})", line=line) from error


def _nobody_has(reference: Reference) -> str:
    return (
        f"pull access denied for {reference.familiar_name}, repository does not exist or may require 'docker login': there is no"
        f" image {reference.familiar} here; `labkit image ls` lists those that are, `labkit setup images` makes the course's."
    )
