"""Checkpoints of the course's files: one a file, in ``.ipynb_checkpoints`` beside it, and never outside the folder.

Jupyter's own checkpoints follow a link of that name to wherever it leads, and write there. These take the same road as all
files (`CourseFolder`): a planted link is an error, not a way.

Leaves out: several checkpoints of one file.
See: Jupyter Server, "Checkpoints API".
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, cast

from jupyter_server.services.contents.checkpoints import AsyncCheckpoints
from tornado.web import HTTPError
from typing_extensions import override

from labkit.sandbox.server_folder import CourseFolder

__all__ = ["CourseCheckpoints"]

_ID = "checkpoint"
_FOLDER = ".ipynb_checkpoints"
_Answer = TypeVar("_Answer")


class _Contents(Protocol):
    """What is used of the contents manager (`labkit.sandbox.server_contents`)."""

    most_bytes: int

    @property
    def folder(self) -> CourseFolder: ...

    async def in_thread(self, function: Callable[..., _Answer], path: str, *more: Any) -> _Answer: ...


class CourseCheckpoints(AsyncCheckpoints):
    """Keeps a copy of a file beneath the root of the contents manager that it belongs to."""

    @property
    def _contents(self) -> _Contents:
        return cast(_Contents, self.parent)

    @override
    async def create_checkpoint(self, contents_mgr: Any, path: str) -> dict[str, Any]:
        return await self._contents.in_thread(self._copy, path)

    @override
    async def restore_checkpoint(self, contents_mgr: Any, checkpoint_id: str, path: str) -> None:
        _demand_known(checkpoint_id, path)
        await self._contents.in_thread(self._restore, path)

    @override
    async def rename_checkpoint(self, checkpoint_id: str, old_path: str, new_path: str) -> None:
        _demand_known(checkpoint_id, old_path)
        await self._contents.in_thread(self._rename, old_path, new_path.strip("/"))

    @override
    async def delete_checkpoint(self, checkpoint_id: str, path: str) -> None:
        _demand_known(checkpoint_id, path)
        await self._contents.in_thread(lambda clean: self._contents.folder.remove(_place_of(clean)), path)

    @override
    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:
        try:
            return [await self._contents.in_thread(self._describe, path)]
        except HTTPError as error:
            if error.status_code == 404:
                return []
            raise

    def _copy(self, path: str) -> dict[str, Any]:
        folder = self._contents.folder
        data = folder.read(path, most_bytes=self._contents.most_bytes)
        try:
            folder.make_folder(_place_of(path).rpartition("/")[0])
        except FileExistsError:
            pass
        folder.write(_place_of(path), data)
        return self._describe(path)

    def _restore(self, path: str) -> None:
        folder = self._contents.folder
        folder.write(path, folder.read(_place_of(path), most_bytes=self._contents.most_bytes))

    def _rename(self, old: str, new: str) -> None:
        folder = self._contents.folder
        try:
            folder.make_folder(_place_of(new).rpartition("/")[0])
        except FileExistsError:
            pass
        folder.rename(_place_of(old), _place_of(new))

    def _describe(self, path: str) -> dict[str, Any]:
        modified_s = self._contents.folder.look(_place_of(path)).modified_s
        return {"id": _ID, "last_modified": datetime.fromtimestamp(modified_s, tz=UTC)}


def _place_of(path: str) -> str:
    """Return where the checkpoint of ``path`` lies: ``a/b.ipynb`` gives ``a/.ipynb_checkpoints/b-checkpoint.ipynb``."""
    folder, _, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    kept = f"{stem}-{_ID}.{suffix}" if dot and stem else f"{name}-{_ID}"
    return "/".join(filter(None, (folder, _FOLDER, kept)))


def _demand_known(checkpoint_id: str, path: str) -> None:
    if checkpoint_id != _ID:
        raise HTTPError(404, f"{path} has no checkpoint {checkpoint_id}.")
