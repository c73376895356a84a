"""RUN: a command in a container on the image so far; what it changed becomes a layer.

The layers below are mounted read-only under an empty writable one. When the command has ended well, the writable folder holds exactly what it
made, changed and deleted, and is packed as it is. Folders that only came into being because something was mounted on them (``/proc``,
``/dev``, a cache) are no change, and are taken out first.

A command has no network unless the caller lends it the machine's: what it would fetch today is not there, or not the same, tomorrow.

Leaves out: limits of memory and CPU for a build's commands; a terminal.
See: dockerfile(5), "RUN"; Documentation/filesystems/overlayfs.rst in Linux.
"""

from __future__ import annotations

import codecs
import errno
import os
import selectors
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from labkit.container.container import Container
from labkit.container.spec import MountSpec, Rootfs
from labkit.errors import SetupError
from labkit.image.build.errors import BuildError
from labkit.image.build.job import Job
from labkit.image.build.lending import mount_specs
from labkit.image.build.progress import Event
from labkit.image.build.state import State
from labkit.image.build.step import Command
from labkit.image.layer import Layer, make_layer
from labkit.linux.fds import Fd
from labkit.linux.syscalls import open_beneath

__all__ = ["run_command"]

#: The same in every build, so that a program that notes its host's name notes the same one.
_HOSTNAME = "labkit-build"
_LOOK_S = 0.1
_PART_BYTES = 1 << 16
#: What every container has mounted, whether or not the image has a place for it.
_MOUNT_POINTS = ("/proc", "/dev", "/sys")


def run_command(job: Job, state: State, command: Command) -> Layer:
    """Run ``command`` on the image ``state`` and return the layer that it made.

    Raises: BuildError with the exit status if it failed, BuildCancelled.
    """
    with ExitStack() as stack:
        scratch = stack.enter_context(job.scratch_folder())
        mounts = mount_specs(
            job, command.mounts, command.shared, scratch, stack, script=command.script, network=command.network
        )
        _run(job, state, command, scratch, mounts)
        upper = scratch / "upper"
        for path in (*_MOUNT_POINTS, *(mount.target for mount in mounts)):
            _forget_mount_point(job, state, upper, path)
        latest_s = None if job.epoch == "now" else job.epoch_s
        layer, _ = make_layer(job.store.blobs, upper, compression="none", latest_s=latest_s)
    return layer


def _run(job: Job, state: State, command: Command, scratch: Path, mounts: list[MountSpec]) -> None:
    config = state.run_config
    lowers = job.lowers(state)
    if not lowers:
        lowers = [scratch / "empty"]
        lowers[0].mkdir()
    env = {**config.environment, **command.env}
    if job.epoch_was_given:
        env.setdefault("SOURCE_DATE_EPOCH", str(job.epoch_s))
    words = ("/dev/pipes/script",) if command.script is not None else command.words
    container = Container(
        words, rootfs=Rootfs("overlay", tuple(map(str, lowers)), lowers_owned=True), writable=scratch, hostname=_HOSTNAME,
        net=command.network, user=config.user or "0:0", cwd=config.working_dir or "/", env=env, mounts=mounts,
    )  # fmt: skip
    with container:
        job.progress(Event("running", line=command.line, name=container.name))
        try:
            container.start()
        except SetupError as error:
            raise _not_started(error, words[0], command) from error
        try:
            _tell_output(job, container)
        except BaseException:
            container.kill()
            raise
        code = container.wait().code
    if code:
        hint = "; it had no network: --network host lends it the machine's" if command.network == "none" else ""
        raise BuildError(
            f"The command '{command.shown}' returned a non-zero code: {code} (line {command.line}{hint}).",
            line=command.line, code=code,
        )  # fmt: skip


def _not_started(error: SetupError, name: str, command: Command) -> BuildError:
    if error.step != f"run {name}":
        return BuildError(f"The command '{command.shown}' was not started: {error}", line=command.line)
    code = 127 if error.errno == errno.ENOENT else 126
    return BuildError(
        f"The command '{command.shown}' was not started: exec: {name!r}: {os.strerror(error.errno)} in the image: it, or the"
        " interpreter that its first line names, must be copied into the image before.",
        line=command.line, code=code,
    )  # fmt: skip


def _tell_output(job: Job, container: Container) -> None:
    """Pass on what the command writes until it has closed both outputs. Raises: BuildCancelled."""
    decoder = codecs.getincrementaldecoder("utf-8")
    outputs = {file: decoder("replace") for file in (container.stdout, container.stderr) if file is not None}
    with selectors.DefaultSelector() as selector:
        for file in outputs:
            selector.register(file, selectors.EVENT_READ)
        while selector.get_map():
            job.check_cancelled()
            for key, _ in selector.select(_LOOK_S):
                _tell_part(job, key.fileobj, outputs, selector, is_error=key.fileobj is container.stderr)


def _tell_part(
    job: Job, file: Any, outputs: Mapping[IO[bytes], Any], selector: selectors.BaseSelector, *, is_error: bool
) -> None:
    data = os.read(file.fileno(), _PART_BYTES)
    text = outputs[file].decode(data, not data)
    if text:
        job.progress(Event("output", text=text, is_error_output=is_error))
    if not data:
        selector.unregister(file)


def _forget_mount_point(job: Job, state: State, upper: Path, path: str) -> None:
    """Remove from the upper folder what was made only to be mounted on: empty, and not in the image below."""
    entry, missing = job.tree(state).place_of(path)
    with Fd(os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as upper_fd:
        for number in range(len(missing), 0, -1):
            parent = "/".join([entry.path.strip("/"), *missing[: number - 1]]).strip("/")
            if not _remove_if_empty(upper_fd.number, parent or ".", missing[number - 1]):
                return


def _remove_if_empty(upper_fd: int, parent: str, name: str) -> bool:
    """Remove an empty folder or file; False if it is something else.

    The command may have put a link to anywhere in the place of ``parent``, so no way that leads out of the upper folder is taken.
    """
    try:
        with Fd(open_beneath(upper_fd, parent, os.O_PATH | os.O_DIRECTORY)) as folder:
            status = os.lstat(name, dir_fd=folder.number)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=folder.number)
            elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                os.unlink(name, dir_fd=folder.number)
            else:
                return False
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    return True
