"""The contenders that others have written: unshare, bwrap, crun, runc; podman and docker are in `labkit.measure.engines`.

What they keep lies in a scratch folder and is removed at the end. They do not all do the same: ``note`` says what each one does, and
it is never more than labkit's full container does. runc and crun get that container as an OCI bundle (`labkit.measure.bundle`),
without the limits where they can use no cgroups.

See: unshare(1), bwrap(1), runc(8), crun(1), OCI Runtime Specification, config.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from labkit.errors import LabkitError
from labkit.measure import engines
from labkit.measure.bundle import oci_config
from labkit.measure.contenders import Contender
from labkit.measure.programs import container_name, held_cgroups, outside, program, quietly
from labkit.measure.scratch import scratch_folder

__all__ = ["PEERS"]

_BUNDLE_NOTE = "labkit's container as an OCI bundle, but a read-only root instead of a layer"


@contextmanager
def _unshare(rootfs: Path) -> Iterator[Contender]:
    kinds = ("--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "--ipc", "--uts", "--cgroup")
    command = [program("unshare"), *kinds, f"--root={rootfs}", "/bin/true"]
    yield outside("unshare", command, "seven namespaces and chroot; no limits, no filter, no /proc")


@contextmanager
def _bwrap(rootfs: Path) -> Iterator[Contender]:
    command = [program("bwrap"), "--unshare-all", "--ro-bind", str(rootfs), "/", "/bin/true"]
    yield outside("bwrap", command, "seven namespaces, read-only root, no capabilities; no limits, no filter, no /proc")


def _oci_runtime(name: str, without_limits: Sequence[str] = ()) -> Callable[[Path], AbstractContextManager[Contender]]:
    """Return how to prepare an OCI runtime; ``without_limits`` are options for machines where it can use no cgroups."""

    @contextmanager
    def prepare(rootfs: Path) -> Iterator[Contender]:
        with scratch_folder() as folder, held_cgroups() as group:
            options = [program(name), "--root", str(folder / "state")]
            try:
                try:
                    contender = _try_bundle(
                        name, options, folder, oci_config(rootfs, group=f"{group}/{container_name()}"), _BUNDLE_NOTE
                    )
                except LabkitError as error:
                    options += without_limits
                    note = f"{_BUNDLE_NOTE}; no limits ({error})"
                    contender = _try_bundle(name, options, folder, oci_config(rootfs, group=None), note)
                yield contender
            finally:
                _delete(options)

    return prepare


def _try_bundle(
    name: str, options: Sequence[str], folder: Path, config: Mapping[str, object], note: str
) -> Contender:  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    try:
        return outside(name, [*options, "run", "--bundle", str(folder), container_name()], note)
    except LabkitError:
        _delete(options)
        raise


def _delete(options: Sequence[str]) -> None:
    """Have the runtime forget the container, if it still knows it."""
    quietly(*options, "delete", "--force", container_name())


#: How each of the others is prepared.
PEERS: Mapping[str, Callable[[Path], AbstractContextManager[Contender]]] = {
    "unshare": _unshare,
    "bwrap": _bwrap,
    "crun": _oci_runtime("crun", ["--cgroup-manager=disabled"]),
    "runc": _oci_runtime("runc"),
    "podman": engines.podman,
    "docker": engines.docker,
}
