"""The Jupyter server's contents manager for the course: JupyterLab's files, all through `CourseFolder`.

Jupyter asks a *contents manager* for models: dictionaries with name, type, times and, if wanted, content. Its own one follows the
links that a student's program plants, reads files of any size (300 MiB of zeros, which take no disk, become an answer of 1.8 GiB),
and waits for ever on a FIFO. This one resolves beneath its root, has a limit for a file and one for a listing, and works in a
thread, so that a slow disk does not hold up the messages of the kernels. Checkpoints go the same way.

Leaves out: copying folders; hidden files; the trash (what is deleted is gone).
See: Jupyter Server, "Contents API"; `labkit.sandbox.server_folder`.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import mimetypes
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import nbformat
from jupyter_server.services.contents.manager import AsyncContentsManager
from tornado.web import HTTPError
from traitlets import Dict, Int, Unicode, default
from typing_extensions import override

from labkit.sandbox.server_checkpoints import CourseCheckpoints
from labkit.sandbox.server_folder import CourseFolder, Entry
from labkit.units import MiB

__all__ = ["CourseContents"]

Model = dict[str, Any]
_Answer = TypeVar("_Answer")
_STATUS_OF = {
    errno.ENOENT: 404, errno.ENOTDIR: 404, errno.EXDEV: 404, errno.ELOOP: 404, errno.EAGAIN: 404, errno.EACCES: 403,
    errno.EPERM: 403, errno.EROFS: 403, errno.EEXIST: 409, errno.EFBIG: 413, errno.ENOSPC: 507, errno.EDQUOT: 507,
}  # fmt: skip
_WAY_OUT = "it is not there, or it is a link that leads out of the course folder, which the server does not follow"


class CourseContents(AsyncContentsManager):
    """Files below ``root_dir`` and nothing else; ``parts`` are other folders that are shown below it by name."""

    root_dir = Unicode(config=True)
    parts = Dict(
        key_trait=Unicode(), value_trait=Unicode(), config=True, help="Other folders, shown in the root by name."
    )
    most_bytes = Int(16 * MiB, config=True, help="The largest file that is read or written, in bytes.")
    most_entries = Int(2_000, config=True, help="How many entries of a folder are shown.")
    delete_to_trash = False  # JupyterLab asks, and says "permanently"

    @default("root_dir")
    def _root_dir_of_server(self) -> str:
        return str(self.parent.root_dir) if self.parent is not None else str(Path.cwd())

    @default("checkpoints_class")
    def _course_checkpoints(self) -> type[CourseCheckpoints]:
        return CourseCheckpoints

    @default("files_handler_params")
    def _parameters_of_files(self) -> dict[str, str]:
        # Jupyter's handler for downloads asks this manager for the file, but cannot be made without a folder.
        return {"path": self.root_dir}

    @property
    def folder(self) -> CourseFolder:
        """The folder as it is configured now."""
        return CourseFolder(Path(self.root_dir), parts={name: Path(path) for name, path in self.parts.items()})

    async def in_thread(self, function: Callable[..., _Answer], path: str, *more: Any) -> _Answer:
        """Return ``function(path, ...)``, run in a thread, with errors as HTTP has them."""
        clean = _clean(path)

        def call() -> _Answer:
            with http_errors(clean):
                return function(clean, *more)

        return await asyncio.to_thread(call)

    # -- questions --

    @override
    async def is_hidden(self, path: str) -> bool:
        return any(name.startswith(".") for name in _clean(path).split("/"))

    async def _kind(self, path: str) -> str:
        try:
            return (await self.in_thread(self.folder.look, path)).kind
        except HTTPError:
            return ""

    @override
    async def dir_exists(self, path: str) -> bool:
        return await self._kind(path) == "directory"

    @override
    async def file_exists(self, path: str) -> bool:
        return await self._kind(path) == "file"

    @override
    async def exists(self, path: str) -> bool:
        return await self._kind(path) != ""

    @override
    async def get(
        self, path: str, content: bool = True, type: str | None = None, format: str | None = None,
        require_hash: bool = False,
    ) -> Model:  # fmt: skip
        wanted = partial(self._model, content=bool(content), require_hash=bool(require_hash))
        model = await self.in_thread(wanted, path, type, format)
        if content and model["type"] == "notebook":
            # Not in the thread: the signatures lie in an SQLite database, which is bound to the thread that opened it.
            self.mark_trusted_cells(model["content"], path)
        self.emit(data={"action": "get", "path": _clean(path)})
        return model

    def _model(self, path: str, kind: str | None, format: str | None, *, content: bool, require_hash: bool) -> Model:
        self._demand_visible(path)
        entry = self.folder.look(path)
        is_folder = entry.kind == "directory"
        if not entry.kind or (kind is not None and (kind == "directory") != is_folder):
            raise HTTPError(400, f"{path} is {'a folder' if is_folder else 'no folder'}.", reason="bad type")
        if is_folder:
            return self._folder_model(path, entry, content=content)
        is_notebook = kind == "notebook" or (kind is None and path.endswith(".ipynb"))
        model = _base_model(path, entry) | {"type": "notebook" if is_notebook else "file"}
        if not content and not require_hash:
            return model
        data = self.folder.read(path, most_bytes=self.most_bytes)
        if require_hash:
            model |= {"hash": hashlib.sha256(data).hexdigest(), "hash_algorithm": "sha256"}
        if content:
            model |= self._notebook_content(path, data, model) if is_notebook else _file_content(path, data, format)
        return model

    def _folder_model(self, path: str, entry: Entry, *, content: bool) -> Model:
        model = _base_model(path, entry) | {"type": "directory", "size": None, "mimetype": None}
        if content:
            below = f"{path}/" if path else ""
            shown = (found for found in self.folder.entries(path, most=self.most_entries) if self._is_shown(found.name))
            model["content"] = [_listed(below + found.name, found) for found in shown]
            model["format"] = "json"
        return model

    def _is_shown(self, name: str) -> bool:
        # A name that is no UTF-8 cannot be part of an address, and JupyterLab stops at it.
        return not name.startswith(".") and bool(self.should_list(name)) and name.isprintable()

    def _demand_visible(self, path: str) -> None:
        if any(name.startswith(".") for name in path.split("/")) and not self.allow_hidden:
            raise HTTPError(404, f"{path} is hidden, and the course's server leaves hidden files alone.")

    def _notebook_content(self, path: str, data: bytes, model: Model) -> Model:
        errors: dict[str, Any] = {}
        try:
            notebook = nbformat.reads(data.decode(), as_version=4, capture_validation_error=errors)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise HTTPError(400, f"{path} is no notebook that can be read: {error!r}") from error
        checked = {**model, "content": notebook, "format": "json", "mimetype": None}
        self.validate_notebook_model(checked, errors)
        return checked

    # -- changes --

    @override
    async def save(self, model: Model, path: str = "") -> Model:
        self.run_pre_save_hooks(model=model, path=path)
        kind = model.get("type")
        if kind not in ("notebook", "file", "directory") or (kind != "directory" and "content" not in model):
            raise HTTPError(400, "A model to be saved has a type (notebook, file, directory), and content.")
        if kind == "notebook":
            model = {**model, "content": self._signed(model["content"], path)}
        message = await self.in_thread(self._save, path, model)
        saved = await self.get(path, content=False, type=kind)
        if message:
            saved["message"] = message
        if kind == "notebook" and not await self.checkpoints.list_checkpoints(path):
            await self.create_checkpoint(path)  # "Revert" needs one
        self.emit(data={"action": "save", "path": _clean(path)})
        return saved

    def _signed(self, content: Any, path: str) -> Any:
        """Return the notebook, signed if all its outputs are trusted. Raises: HTTPError for what is no notebook."""
        try:
            notebook = nbformat.from_dict(content)
            self.check_and_sign(notebook, path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise HTTPError(400, f"{path}: the content is no notebook ({error!r}).") from error
        return notebook

    def _save(self, path: str, model: Model) -> str:
        self._demand_visible(path)
        if model["type"] == "directory":
            if self.folder.look(path.rpartition("/")[0]).kind == "directory" and not self._is_folder(path):
                self.folder.make_folder(path)
            return ""
        if model["type"] == "notebook":
            return self._save_notebook(path, model)
        data, chunk = _bytes_of(model), model.get("chunk")
        if chunk is not None and chunk != 1:
            self.folder.append(path, data, most_bytes=self.most_bytes)
        else:
            self._write(path, data)
        return ""

    def _is_folder(self, path: str) -> bool:
        try:
            return self.folder.look(path).kind == "directory"
        except FileNotFoundError:
            return False

    def _save_notebook(self, path: str, model: Model) -> str:
        notebook = model["content"]
        errors: dict[str, Any] = {}
        text = nbformat.writes(notebook, version=nbformat.NO_CONVERT, capture_validation_error=errors)
        self._write(path, (text if text.endswith("\n") else text + "\n").encode())
        checked: Model = {"content": notebook}
        self.validate_notebook_model(checked, errors)
        return str(checked.get("message", ""))

    def _write(self, path: str, data: bytes) -> None:
        if len(data) > self.most_bytes:
            raise OSError(errno.EFBIG, "too large", path)
        self.folder.write(path, data)

    @override
    async def delete_file(self, path: str) -> None:
        await self.in_thread(self._delete, path)

    def _delete(self, path: str) -> None:
        self._demand_visible(path)
        self.folder.remove(path)

    @override
    async def rename_file(self, old_path: str, new_path: str) -> None:
        if _clean(old_path) != _clean(new_path):
            await self.in_thread(self._rename, old_path, _clean(new_path))

    def _rename(self, old: str, new: str) -> None:
        self._demand_visible(old)
        self._demand_visible(new)
        self.folder.rename(old, new)

    @override
    def info_string(self) -> str:
        return f"Files below {self.root_dir}, and nothing that links lead to outside"

    @override
    def get_kernel_path(self, path: str, model: Model | None = None) -> str:
        return path.rpartition("/")[0]


@contextmanager
def http_errors(path: str) -> Iterator[None]:
    """Turn what the kernel answers into what HTTP answers; the address of the folder on this machine stays out of it."""
    try:
        yield
    except OSError as error:
        status = _STATUS_OF.get(error.errno or 0, 400)
        reason = {404: _WAY_OUT, 413: "it is larger than the course's server handles"}.get(status, error.strerror)
        raise HTTPError(status, f"{path}: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise HTTPError(400, f"{path}: {error}") from error


def _clean(path: str) -> str:
    return "/".join(filter(None, path.split("/")))


def _base_model(path: str, entry: Entry) -> Model:
    return {
        "name": path.rpartition("/")[2],
        "path": path,
        "last_modified": _time(entry.modified_s),
        "created": _time(entry.changed_s),
        "content": None,
        "format": None,
        "mimetype": mimetypes.guess_type(path)[0],
        "size": entry.size_bytes,
        "writable": entry.writable,
        "hash": None,
        "hash_algorithm": None,
    }


def _listed(path: str, entry: Entry) -> Model:
    kind = "notebook" if entry.kind == "file" and path.endswith(".ipynb") else entry.kind
    size = entry.size_bytes if entry.kind == "file" else None
    return _base_model(path, entry) | {"type": kind, "size": size}


def _time(seconds: float) -> datetime:
    # A file may carry any time; the year 30000 is none for Python.
    try:
        return datetime.fromtimestamp(seconds, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, tz=UTC)


def _file_content(path: str, data: bytes, format: str | None) -> Model:
    """Return content as text where it is text; zeros are not: each takes six bytes of an answer in JSON."""
    kind = mimetypes.guess_type(path)[0]
    if format != "base64" and b"\0" not in data:
        try:
            return {"content": data.decode(), "format": "text", "mimetype": kind or "text/plain"}
        except UnicodeDecodeError:
            pass
    if format == "text":
        raise HTTPError(400, f"{path} is not UTF-8 text.", reason="bad format")
    return {"content": b64encode(data).decode(), "format": "base64", "mimetype": kind or "application/octet-stream"}


def _bytes_of(model: Model) -> bytes:
    content = model["content"]
    if model.get("format") not in ("text", "base64") or not isinstance(content, str):
        raise HTTPError(400, "The content of a file is a string, with the format 'text' or 'base64'.")
    try:
        return content.encode() if model["format"] == "text" else b64decode(content.encode("ascii"))
    except ValueError as error:
        raise HTTPError(400, f"The content cannot be encoded: {error}") from error
