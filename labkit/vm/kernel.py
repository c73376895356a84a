"""The guest's kernel: which ones labkit keeps, where they lie, and whether they are still what set-up put there.

A guest needs a kernel that it can do its work with, and a small one boots faster. So there are two kinds: ``micro`` (made for clouds:
virtio devices and not much else) and ``hostroot`` (with the 9p file system, through which the guest sees the host's files). Each is a
folder of the cache, filled by `labkit.vm.setup` from the distribution's package::

    kernels/micro/kernel.json    release, package, size and SHA-256 of vmlinux
    kernels/micro/vmlinux        the unpacked kernel
    kernels/micro/modules/       what lay below /lib/modules/RELEASE

A kernel is hashed again only when the file was touched since set-up.

Leaves out: the host's own kernel, which its owner may have made unreadable, or without what a guest needs.
See: `labkit.vm.vmlinux`, `labkit.vm.modules`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labkit.errors import FeatureMissing, GuestError
from labkit.setup.parts import cache_folder

__all__ = ["KINDS", "GuestKernel", "Kind", "find_kernel", "kernel_folder", "store_kernel"]

Kind = Literal["micro", "hostroot"]
KINDS: tuple[Kind, ...] = ("micro", "hostroot")
_AGAIN = "Run `labkit setup vm --again`."


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """A kernel to boot: the unpacked file, its release (``uname -r``), and the folder of its modules."""

    path: Path
    release: str
    modules: Path
    package: str = ""


def kernel_folder(kind: Kind) -> Path:
    """Return the folder of the kernel of ``kind``; it need not exist."""
    return cache_folder() / "kernels" / kind


def find_kernel(kind: Kind) -> GuestKernel:
    """Return the kernel of ``kind`` that set-up has put into the cache.

    Raises: FeatureMissing if there is none, GuestError if it is not what set-up put there.
    """
    folder = kernel_folder(kind)
    described, path = folder / "kernel.json", folder / "vmlinux"
    try:
        facts: dict[str, Any] = json.loads(described.read_text())
        found = GuestKernel(path, str(facts["release"]), folder / "modules", str(facts["package"]))
        state = path.stat()
    except FileNotFoundError as error:
        raise FeatureMissing(
            f"There is no guest kernel ({kind}) on this machine.", remedy="Run `labkit setup vm`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GuestError(f"{described} cannot be used: {error}. {_AGAIN}") from error
    if state.st_size != facts.get("size_bytes"):
        raise GuestError(f"{path} is damaged: {state.st_size} bytes instead of {facts.get('size_bytes')}. {_AGAIN}")
    if state.st_mtime_ns != facts.get("mtime_ns") and _digest(path.read_bytes()) != facts.get("sha256"):
        raise GuestError(f"{path} is damaged: its content is not what set-up put there. {_AGAIN}")
    return found


def store_kernel(kind: Kind, image: bytes, *, release: str, package: str) -> GuestKernel:
    """Put the unpacked kernel ``image`` into the cache; its modules must lie there already. Raises: OSError."""
    folder = kernel_folder(kind)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vmlinux"
    path.write_bytes(image)
    state = path.stat()
    facts = {
        "release": release,
        "package": package,
        "size_bytes": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "sha256": _digest(image),
    }
    # Written last: a folder without it counts as no kernel at all.
    new_path = folder / "kernel.json.new"
    new_path.write_text(json.dumps(facts, indent=1))
    new_path.replace(folder / "kernel.json")
    return GuestKernel(path, release, folder / "modules", package)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
