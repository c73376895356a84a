"""Which kernels the course's server starts, where, and how much it keeps of what they say.

Three habits of the Jupyter server are ways out or ways to hurt it. Its list of allowed kernelspecs hides the others, but starts them
when asked by name, and it looks for them in folders of the user's home: so here a kernelspec comes from the environment that the
server runs in, and from nowhere else. It makes the kernel's working folder from the path of the notebook, ``..`` and links included.
And it keeps what a kernel says while no browser listens, without end.

Leaves out: what goes on inside a kernel (`labkit.sandbox`).
See: Jupyter Client, "Kernel specs"; Jupyter Server, "MappingKernelManager"; zmq_setsockopt(3) (ZMQ_MAXMSGSIZE).
"""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import Int, default
from typing_extensions import override

from labkit.sandbox.server_contents import CourseContents
from labkit.sandbox.server_folder import CourseFolder
from labkit.units import MiB

__all__ = ["CourseKernels", "CourseKernelspecs", "OfflineMessages"]


class CourseKernelspecs(KernelSpecManager):
    """Kernelspecs of this environment that are on the list; no other can be named."""

    ensure_native_kernel = False

    @default("kernel_dirs")
    def _kernel_dirs_of_environment(self) -> list[str]:
        return [str(Path(sys.prefix) / "share/jupyter/kernels")]

    @override
    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name not in self.allowed_kernelspecs:
            raise NoSuchKernel(kernel_name)
        return super().get_kernel_spec(kernel_name)


class OfflineMessages(deque[tuple[str, list[bytes]]]):
    """What a kernel said while no browser listened: the last of it, up to ``most_bytes``."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self.most_bytes = most_bytes
        self.size_bytes = 0

    @override
    def append(self, item: tuple[str, list[bytes]]) -> None:
        super().append(item)
        self.size_bytes += _size_bytes(item)
        while self.size_bytes > self.most_bytes:
            self.size_bytes -= _size_bytes(self.popleft())


def _size_bytes(message: tuple[str, list[bytes]]) -> int:
    # A message of many empty parts takes memory too.
    return sum(len(part) + 64 for part in message[1])


class CourseKernels(AsyncMappingKernelManager):
    """Kernels whose working folder lies below the root, and whose messages have limits."""

    most_message_bytes = Int(64 * MiB, config=True, help="The largest message that is taken from a kernel.")
    most_offline_bytes = Int(
        32 * MiB, config=True, help="How much of a kernel's messages is kept while no browser listens."
    )

    @default("context")
    def _context_default(self) -> zmq.Context[Any]:
        context: zmq.Context[Any] = super()._context_default()
        # A default of all sockets that are made from now on; a kernel that sends more loses its connection.
        context.setsockopt(zmq.MAXMSGSIZE, self.most_message_bytes)
        return context

    @override
    def cwd_for_path(self, path: str, **_: Any) -> str:
        """Return the folder of the notebook ``path``, the nearest that is there; the root if the way leads out of it."""
        contents = getattr(self.parent, "contents_manager", None)
        folder = contents.folder if isinstance(contents, CourseContents) else CourseFolder(Path(self.root_dir))
        names = [name for name in path.split("/") if name]
        while names:
            try:
                if folder.look("/".join(names)).kind == "directory":
                    break
            except OSError:
                pass
            names.pop()
        return os.path.join(*folder.place("/".join(names)))

    @override
    def start_buffering(self, kernel_id: str, session_key: str, channels: dict[str, Any]) -> None:
        super().start_buffering(kernel_id, session_key, channels)  # type: ignore[no-untyped-call]
        if self.buffer_offline_messages:
            self._kernel_buffers[kernel_id]["buffer"] = OfflineMessages(self.most_offline_bytes)
