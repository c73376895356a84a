"""A machine as a file: everything in it (memory, registers, devices) saved, and brought back to life later.

A running program cannot simply be written to a file, because its state is spread over it and the kernel. A machine can: its whole
state is what QEMU holds, and QEMU can write it as it does for a migration. The file begins with one line of JSON that says
what machine it was; pages of zeros take no room. A second of booting becomes a few hundred milliseconds of reading.

The file gets its name when it is complete.

Leaves out: disks; files from another version of QEMU, which it may refuse; file systems whose files must have names (O_TMPFILE); a
checksum over the memory.
See: open(2) (O_TMPFILE), QEMU's documentation of the migration framework.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from labkit.errors import GuestError
from labkit.linux.fds import Fd
from labkit.units import format_bytes
from labkit.vm.instance import Instance
from labkit.vm.migration import send_state, wait_for_arrival
from labkit.vm.network import Network
from labkit.vm.spec import GuestMount, GuestSpec, Share

__all__ = ["load_state", "open_snapshot", "save_state"]

_MAGIC = b"labkit snapshot 1 "
_MOST_HEADER_BYTES = 64 << 10


def save_state(instance: Instance, path: Path, deadline_s: float) -> None:
    """Write the state of a machine that stands still to ``path``. Raises: GuestError; nothing is left of the file then."""
    try:
        with _new_file(path) as file:
            _demand_room(file, path, instance)
            os.write(file.number, _header(instance.spec))
            send_state(instance.monitor, file.number, deadline_s)
            _give_name(file, path)
    except OSError as error:
        raise GuestError(f"The snapshot {path} could not be written: {error.strerror}.") from error


def _new_file(path: Path) -> Fd:
    """Return a file beside ``path`` that has no name yet: if we are killed, the kernel takes it away."""
    return Fd(os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _give_name(file: Fd, path: Path) -> None:
    """Let ``file`` appear at ``path``, in place of an older file there."""
    # A link never replaces a file, a rename does; so there is another name in between.
    other = path.with_name(f".{path.name}.labkit-{secrets.token_hex(3)}")
    # src_dir_fd: only with one does Python call linkat(2), which can follow the link of /proc to the file.
    os.link(f"/proc/self/fd/{file.number}", other, src_dir_fd=file.number, follow_symlinks=True)
    os.rename(other, path)


def _demand_room(file: Fd, path: Path, instance: Instance) -> None:
    """Raise GuestError if the disk cannot take what the guest's memory holds by now."""
    needed = instance.touched_bytes
    status = os.fstatvfs(file.number)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise GuestError(
            f"The snapshot {path} needs up to {format_bytes(needed)}, and its disk has {format_bytes(free)} left: "
            "make room, or choose another folder."
        )


def _header(spec: GuestSpec) -> bytes:
    facts = asdict(replace(spec, initramfs=b"")) | {"kernel": str(spec.kernel), "initramfs": ""}
    facts["shares"] = [asdict(share) | {"path": str(share.path)} for share in spec.shares]
    line = _MAGIC + json.dumps(facts).encode() + b"\n"
    if len(line) > _MOST_HEADER_BYTES:
        raise GuestError("The guest has too many settings for a snapshot.")
    return line


def open_snapshot(path: Path) -> tuple[GuestSpec, Fd]:
    """Return the machine's spec and an open descriptor at the beginning of its state. Raises: GuestError."""
    try:
        fd = Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise GuestError(f"The snapshot {path} cannot be opened: {error.strerror}.") from error
    try:
        line = os.pread(fd.number, _MOST_HEADER_BYTES, 0).partition(b"\n")[0]
        if not line.startswith(_MAGIC):
            raise ValueError("it does not begin as one")
        spec = _spec_of(json.loads(line[len(_MAGIC) :]))
        os.lseek(fd.number, len(line) + 1, os.SEEK_SET)
        return spec, fd
    except (OSError, ValueError, KeyError, TypeError) as error:
        fd.close()
        raise GuestError(f"{path} is no snapshot that labkit can read: {error}.") from error


def _spec_of(facts: dict[str, Any]) -> GuestSpec:
    shares = tuple(Share(one["tag"], Path(one["path"]), one["readonly"]) for one in facts["shares"])
    mounts = tuple(GuestMount(**one) for one in facts["mounts"])
    words = {name: tuple(facts[name]) for name in ("append", "cards", "devices", "modules")}
    return GuestSpec(
        **facts | words | {"kernel": Path(facts["kernel"]), "initramfs": b"", "shares": shares, "mounts": mounts}
    )


def load_state(name: str, spec: GuestSpec, state: Fd, deadline_s: float, network: Network | None) -> Instance:
    """Start a QEMU that takes the machine's state from ``state`` and lets it run. Raises: GuestError with QEMU's reason."""
    instance = Instance(name, spec, incoming_fd=state.number, network=network)
    try:
        wait_for_arrival(instance, deadline_s)
        instance.port.expect_nothing()
        instance.monitor.execute("cont")  # it was saved standing still
    except BaseException:
        instance.close()
        raise
    return instance
