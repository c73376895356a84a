"""The start of a container, from description to running program, and what is taken back if a step fails.

::

    volumes and bind sources opened -> addresses reserved -> /etc/hosts written -> spec made
    -> keeper: cgroup, namespaces -> interfaces put into the network namespace -> mounts ... execve

A program that cannot be executed is told to the client in Docker's words, because ``docker run`` takes its exit status from them.

See: `labkit.engine.objects.launch`, `labkit.engine.keeper`.
"""

from __future__ import annotations

import errno
import logging
from contextlib import ExitStack

from labkit.engine.keeper.client import KeeperClient, Started
from labkit.engine.keeper.logfile import DEFAULT_LOG_BYTES, DEFAULT_LOG_FILES, LogPlace
from labkit.engine.network.manager import Networks
from labkit.engine.objects.images import Images
from labkit.engine.objects.launch import make_spec
from labkit.engine.objects.record import Container
from labkit.engine.objects.storage import Storage
from labkit.engine.spec.config import command_of
from labkit.engine.spec.hostconfig import limits_of
from labkit.engine.wire.errors import ApiError, BadParameter
from labkit.errors import InvalidSpec, LabkitError, SetupError
from labkit.units import parse_bytes

__all__ = ["Starter", "docker_words", "exit_code_of"]

log = logging.getLogger(__name__)

_FAILED = "failed to create shim task: OCI runtime create failed"
_NOT_FOUND, _NOT_EXECUTABLE, _OTHER = 127, 126, 128


class Starter:
    """Starts containers; whoever calls it holds the container's lock."""

    def __init__(self, keeper: KeeperClient, images: Images, storage: Storage, networks: Networks) -> None:
        self._keeper, self._images, self._storage, self._networks = keeper, images, storage, networks

    def start(self, container: Container) -> Started:
        """Start the program. Raises: ApiError in Docker's words, LabkitError; then nothing is left of the attempt."""
        lowers = self._images.to_run(container.image_id).lowers
        limits = limits_of(container.host)
        with ExitStack() as held, ExitStack() as on_failure:
            sources = self._storage.open_sources(container.mounts, held)
            on_failure.callback(self._networks.release, container)
            addresses = self._networks.prepare(container)
            dns = self._networks.dns_of(container)
            files = self._storage.write_files(
                container, addresses=addresses, dns=dns, linked=self._networks.linked(container)
            )
            spec = make_spec(container, lowers=lowers, sources=sources, files=files)
            has_network = container.host["NetworkMode"] != "host"
            try:
                started = self._keeper.start(
                    container.id, spec, limits=limits, log_place=_log_place(container),
                    open_stdin=container.config["OpenStdin"], stdin_once=container.config["StdinOnce"],
                    exit_path=container.exit_path,
                    between=(lambda pid, net_fd: self._networks.connect_all(container, pid, net_fd)) if has_network else None,
                )  # fmt: skip
            except SetupError as error:
                raise docker_words(error, command_of(container.config)[0]) from error
            on_failure.pop_all()
        for note in started.notes:
            log.warning("%s: %s", container.name, note)
        return started


def _log_place(container: Container) -> LogPlace | None:
    driver, options = container.host["LogConfig"]["Type"], container.host["LogConfig"]["Config"] or {}
    if driver == "none":
        return None
    try:
        size = parse_bytes(str(options["max-size"])) if "max-size" in options else DEFAULT_LOG_BYTES
        files = int(options.get("max-file", DEFAULT_LOG_FILES if "max-size" not in options else 1))
    except (InvalidSpec, ValueError) as error:
        raise BadParameter(f"invalid log option: {error}") from error
    if files < 1 or size < 1:
        raise BadParameter("invalid log option: max-file and max-size must be at least 1")
    return LogPlace(container.log_path, size, files)


def docker_words(error: SetupError, name: str) -> ApiError:
    """Return a refused step as Docker would say it; of execve the client needs the exact words."""
    if error.step == f"run {name}":
        where = "stat " + name + ": no such file or directory" if "/" in name else "executable file not found in $PATH"
        reason = where if error.errno == errno.ENOENT else _reason(error.errno)
        text = f'{_FAILED}: unable to start container process: exec: "{name}": {reason}: unknown'
        return ApiError(text, status=400)
    if error.step == "find the user":
        return ApiError(f"unable to find user: {error}", status=400)
    return ApiError(f"{_FAILED}: {error}", status=500)


def _reason(number: int) -> str:
    import os

    return "permission denied" if number in (errno.EACCES, errno.EPERM, errno.EISDIR) else os.strerror(number).lower()


def exit_code_of(error: LabkitError) -> int:
    """Return the exit status that a container gets whose start failed so."""
    text = str(error)
    if "executable file not found" in text or "no such file or directory" in text:
        return _NOT_FOUND
    return _NOT_EXECUTABLE if "permission denied" in text or "is a directory" in text else _OTHER
