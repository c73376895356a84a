"""A container from an image: its layers as the root filesystem, its configuration as the defaults of what is run.

``ENTRYPOINT`` and ``CMD`` are put together as Docker does: words given by the caller replace CMD; an entry point given by the
caller replaces both. The environment is the image's with the caller's on top. As long as the container lives a lease keeps its layers
from being collected, even if its name goes.

Leaves out: VOLUME, EXPOSE and HEALTHCHECK, which an engine acts on; STOPSIGNAL, which the caller may read.
See: OCI Image Specification, config.md and conversion.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labkit.container.container import Container
from labkit.container.process import Streams
from labkit.container.spec import MountSpec, Rootfs, Security
from labkit.errors import InvalidSpec
from labkit.image.config import RunConfig
from labkit.image.reference import Reference
from labkit.image.store import Image, ImageStore
from labkit.isolation.cgroups import Limits

__all__ = ["RunSettings", "container_of", "rootfs_of", "settings_of"]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What is run, as whom, where, and with which environment."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    user: str
    cwd: str


def settings_of(
    config: RunConfig, command: Sequence[str] = (), *, entrypoint: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None, user: str | None = None, cwd: str | None = None,
) -> RunSettings:  # fmt: skip
    """Return the image's settings with the caller's in their place. Raises: InvalidSpec if there is nothing to run."""
    first = config.entrypoint or () if entrypoint is None else entrypoint
    rest = command or (config.cmd or () if entrypoint is None else ())
    words = (*first, *rest)
    if not words:
        raise InvalidSpec("The image says nothing about what to run (no ENTRYPOINT, no CMD): add a command.")
    return RunSettings(
        words, config.environment | dict(env or {}), user or config.user or "0:0", cwd or config.working_dir or "/"
    )


def rootfs_of(store: ImageStore, image: Image, *, readonly: bool = False) -> Rootfs:
    """Return the root filesystem of a container of ``image``, unpacking layers if need be. Raises: ImageError.

    Hold a lease of ``store`` from before `ImageStore.image` to the container's end.
    """
    lowers = [str(path.absolute()) for path in store.lowers(image)]
    if not lowers:
        raise InvalidSpec("The image has no layers, so there is nothing that could be run in it.")
    return Rootfs("overlay", tuple(lowers), readonly=readonly, lowers_owned=True)


@contextmanager
def container_of(
    store: ImageStore, which: str | Reference | Image, command: Sequence[str] = (), *, entrypoint: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None, user: str | None = None, cwd: str | None = None,
    writable: Path | str | None = None, writable_bytes: int = 256 << 20, readonly: bool = False, limits: Limits | None = None,
    security: Security | None = None, hostname: str | None = None, net: Literal["none", "host"] = "none",
    mounts: Sequence[MountSpec] = (), terminal: bool = False, terminal_size: tuple[int, int] = (24, 80),
    time_limit_s: float | None = None, streams: Streams = ("null", "pipe", "pipe"), name: str | None = None,
) -> Iterator[Container]:  # fmt: skip
    """Give a container of an image, not yet started; at the end of the block it is closed.

    Raises: ImageError for an image that is not there or damaged, InvalidSpec.
    """
    with store.lease() as lease:
        image = which if isinstance(which, Image) else store.image(which)
        lease.add(image.root.digest)
        settings = settings_of(image.config.config, command, entrypoint=entrypoint, env=env, user=user, cwd=cwd)
        container = Container(
            settings.command, rootfs=rootfs_of(store, image), writable=writable, writable_bytes=writable_bytes, readonly=readonly,
            limits=limits, security=security, hostname=hostname, net=net, user=settings.user, cwd=settings.cwd,
            env=settings.env, mounts=mounts, terminal=terminal, terminal_size=terminal_size, time_limit_s=time_limit_s,
            streams=streams, name=name,
        )  # fmt: skip
        with container:
            yield container
