"""Unpacking, as the confined child does it: every entry of the archive by a descriptor of its folder, below a root that is the target.

A path of the archive is split into a folder and a name. The folder is opened with openat2(RESOLVE_IN_ROOT), so a link in it, even
``/`` or ``../..``, leads to a place inside; the name is only ever created (O_EXCL), never opened as it is found. A FIFO or a device is
therefore never opened either. What the archive holds twice is replaced, as tar does.

An entry may lean on layers below: a hard link to a file of theirs copies it up first, and a folder that the archive does not mention
itself gets owner and mode from its namesake there.

Leaves out: devices (skipped and counted: containers get theirs from labkit), default ACLs of folders, exact times of folders
beyond the first hundred thousand.
See: openat2(2); OCI Image Specification, layer.md ("Applying Changesets").
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Any

from labkit.errors import ImageError
from labkit.image import tarheader as tar
from labkit.image import whiteout
from labkit.image.lowerlayers import LowerLayers
from labkit.image.tarstream import TarReader
from labkit.image.treewalk import empty_folder
from labkit.linux.syscalls import open_in_root

__all__ = ["Extractor", "split_path"]

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_MOST_OPEN_FOLDERS = 128
_MOST_KEPT_TIMES = 100_000
_MOST_IDS = 65_536
_ACL = "system.posix_acl_access"
_CAPABILITY = "security.capability"
_ATTRIBUTE_REFUSED = (errno.EOPNOTSUPP, errno.EPERM)


def split_path(name: bytes) -> tuple[bytes, bytes]:
    """Return folder and name of an archive's path, without leading slashes and dots. Raises: ImageError for ``..``."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageError(f"{os.fsdecode(name)!r} leads upwards with '..'.")
    if not parts:
        return b"", b""
    return b"/".join(parts[:-1]), parts[-1]


class Extractor:
    """Unpacks one archive into the process's root folder; `run` does all of it."""

    def __init__(self, stream_fd: int, lower_fds: Sequence[int], options: dict[str, Any]) -> None:
        """``options`` are the fields of `labkit.image.unpack.UnpackLimits`, ``is_layer`` and ``keep_owners``."""
        self.reader = TarReader(stream_fd)
        self.lowers = LowerLayers(lower_fds)
        self.root_fd = os.open("/", _FOLDER_FLAGS)
        self.most_entries = int(options["entries"])
        self.most_bytes = int(options["total_bytes"])
        self.most_path_bytes = int(options["path_bytes"])
        self.is_layer = bool(options["is_layer"])
        self.keep_owners = bool(options["keep_owners"])
        # New files inherit the group of a folder with the set-group-ID bit; once there may be one, owners are always set.
        self.always_chown = not self.is_layer
        self.counts = {"entries": 0, "bytes": 0, "skipped": 0}
        self.opaque_root = False
        self._folders: dict[bytes, int] = {b"": self.root_fd}
        self._times: dict[bytes, int] = {}

    def run(self) -> dict[str, Any]:
        """Unpack everything and return counts. Raises: ImageError naming the entry at which it stopped."""
        if self.is_layer:
            self._inherit(self.root_fd, b"")
        for entry in self.reader.entries():
            try:
                self._apply(entry)
            except OSError as error:
                raise ImageError(f"{entry.shown} could not be unpacked: {error.strerror}.") from error
        self._set_times()
        return self.counts | {"opaque_root": self.opaque_root}

    def _apply(self, entry: tar.Entry) -> None:
        self._count(entry)
        folder, name = split_path(entry.name)
        if self.is_layer and whiteout.PREFIX in entry.name:
            if name.startswith(whiteout.PREFIX):
                self._apply_whiteout(folder, name)
                return
            if any(part.startswith(whiteout.PREFIX) for part in folder.split(b"/")):
                raise ImageError(
                    f"{entry.shown} lies in a folder whose name begins with '.wh.', as only whiteouts may."
                )
        if not name and entry.kind != tar.DIRECTORY:
            raise ImageError(f"{entry.shown} would replace the root folder by something else.")
        if entry.kind == tar.FILE:
            self._make_file(entry, self._folder(folder), name)
        elif entry.kind == tar.DIRECTORY:
            self._make_folder(entry, folder, name)
        elif entry.kind == tar.HARD_LINK:
            self._make_hard_link(entry, folder, name)
        elif entry.kind in (tar.SYMLINK, tar.FIFO):
            self._make_special(entry, self._folder(folder), name)
        else:
            self.counts["skipped"] += 1

    def _count(self, entry: tar.Entry) -> None:
        counts = self.counts
        counts["entries"] += 1
        counts["bytes"] += entry.real_size
        if counts["entries"] > self.most_entries:
            raise ImageError(f"At {entry.shown} the archive passes the limit of {self.most_entries} entries.")
        if counts["bytes"] > self.most_bytes:
            raise ImageError(f"With {entry.shown} the archive passes the limit of {self.most_bytes} bytes unpacked.")
        if len(entry.name) > self.most_path_bytes or len(entry.link) > self.most_path_bytes:
            raise ImageError(f"A name of more than {self.most_path_bytes} bytes begins with {entry.shown[:60]}.")

    def _make_file(self, entry: tar.Entry, parent_fd: int, name: bytes) -> None:
        try:
            fd = os.open(name, _FILE_FLAGS, entry.mode & 0o777, dir_fd=parent_fd)
        except FileExistsError:
            self._make_room(name, parent_fd)
            fd = os.open(name, _FILE_FLAGS, entry.mode & 0o777, dir_fd=parent_fd)
        try:
            if entry.segments is None:
                self.reader.copy(fd, entry.size)
            else:
                os.ftruncate(fd, entry.real_size)
                for offset, length in entry.segments:
                    os.lseek(fd, offset, os.SEEK_SET)
                    self.reader.copy(fd, length)
            if self.keep_owners and (self.always_chown or entry.uid or entry.gid):
                self._chown(fd, entry)
            if entry.mode & 0o7000:
                os.fchmod(fd, entry.mode)  # after chown, which clears these bits
            if entry.xattrs:
                self._set_attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _chown(self, fd: int, entry: tar.Entry) -> None:
        _check_owner(entry)
        try:
            os.fchown(fd, entry.uid, entry.gid)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise _no_such_owner(entry) from error

    def _set_attributes(self, fd: int, entry: tar.Entry) -> None:
        for name, value in entry.xattrs.items():
            if whiteout.is_overlay_attribute(name) or not (name.startswith("user.") or name in (_ACL, _CAPABILITY)):
                self.counts["skipped"] += 1
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in _ATTRIBUTE_REFUSED:
                    raise
                self.counts["skipped"] += 1

    def _make_folder(self, entry: tar.Entry, folder: bytes, name: bytes) -> None:
        path = folder + b"/" + name if folder else name
        fd = self._new_folder(self._folder(folder), name, path) if name else self.root_fd
        if self.keep_owners:
            self._chown(fd, entry)
        os.fchmod(fd, entry.mode)
        self.always_chown = self.always_chown or bool(entry.mode & stat.S_ISGID)
        if entry.xattrs:
            self._set_attributes(fd, entry)
        if len(self._times) >= _MOST_KEPT_TIMES:
            self._set_times()
        self._times[path] = entry.mtime_ns

    def _new_folder(self, parent_fd: int, name: bytes, path: bytes) -> int:
        """Make the folder unless it is there, keep it open, and return its descriptor."""
        try:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
        except FileExistsError:
            status = os.lstat(name, dir_fd=parent_fd)
            if not stat.S_ISDIR(status.st_mode):
                self._make_room(name, parent_fd)
                os.mkdir(name, 0o755, dir_fd=parent_fd)
                if self.is_layer and whiteout.is_whiteout(status):
                    with _closing(os.open(name, _FOLDER_FLAGS, dir_fd=parent_fd)) as fd:
                        whiteout.make_opaque(fd)
        return self._keep_open(path, os.open(name, _FOLDER_FLAGS, dir_fd=parent_fd))

    def _keep_open(self, path: bytes, fd: int) -> int:
        if len(self._folders) >= _MOST_OPEN_FOLDERS:
            self._forget_folders()
        old_fd = self._folders.pop(path, -1)
        if old_fd >= 0:
            os.close(old_fd)
        self._folders[path] = fd
        return fd

    def _forget_folders(self) -> None:
        """Close the folders that are held open: one of them may be another one by now."""
        for fd in self._folders.values():
            if fd != self.root_fd:
                os.close(fd)
        self._folders = {b"": self.root_fd}

    def _folder(self, path: bytes) -> int:
        """Return a descriptor of the folder ``path``, making it and those above if need be."""
        try:
            return self._existing(path)
        except (FileNotFoundError, NotADirectoryError):
            return self._make_folders(path)

    def _existing(self, path: bytes) -> int:
        """Return a descriptor of the folder ``path``. Raises: OSError (ENOENT, ENOTDIR, ELOOP)."""
        fd = self._folders.get(path)
        if fd is not None:
            return fd
        return self._keep_open(path, open_in_root(self.root_fd, os.fsdecode(path), _FOLDER_FLAGS & ~os.O_NOFOLLOW))

    def _make_folders(self, path: bytes) -> int:
        parts = path.split(b"/")
        fd, prefix = self.root_fd, b""
        for part in parts:
            prefix = prefix + b"/" + part if prefix else part
            try:
                fd = self._existing(prefix)
                continue
            except (FileNotFoundError, NotADirectoryError):
                pass
            status = _lstat_or_none(part, fd)
            if status is not None and not whiteout.is_whiteout(status):
                what = "a link that leads nowhere" if stat.S_ISLNK(status.st_mode) else "no folder"
                raise ImageError(f"{os.fsdecode(path)!r} cannot be a folder: {os.fsdecode(prefix)!r} is {what}.")
            fd = self._new_folder(fd, part, prefix)
            self._inherit(fd, prefix)
        return fd

    def _inherit(self, fd: int, path: bytes) -> None:
        """Give a folder that the archive does not mention the owner and mode that it has in the layer below."""
        status = self.lowers.folder(path)
        if status is not None:
            if self.keep_owners:
                os.fchown(fd, status.st_uid, status.st_gid)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
            self.always_chown = self.always_chown or bool(status.st_mode & stat.S_ISGID)
            self._times.setdefault(path, status.st_mtime_ns)

    def _make_room(self, name: bytes, parent_fd: int) -> None:
        """Remove what stands at ``name``, with all that is in it: the archive has it again, as something else."""
        self._forget_others(parent_fd)
        status = os.lstat(name, dir_fd=parent_fd)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=parent_fd)
            return
        with _closing(os.open(name, _FOLDER_FLAGS, dir_fd=parent_fd)) as fd:
            empty_folder(fd)
        os.rmdir(name, dir_fd=parent_fd)

    def _forget_others(self, parent_fd: int) -> None:
        keep = next((path for path, fd in self._folders.items() if fd == parent_fd), b"")
        for fd in self._folders.values():
            if fd not in (parent_fd, self.root_fd):
                os.close(fd)
        self._folders = {b"": self.root_fd, keep: parent_fd}

    def _make_special(self, entry: tar.Entry, parent_fd: int, name: bytes) -> None:
        if _lstat_or_none(name, parent_fd) is not None:
            self._make_room(name, parent_fd)
        if entry.kind == tar.SYMLINK:
            if not entry.link:
                raise ImageError(f"{entry.shown} is a link to nothing.")
            os.symlink(entry.link, name, dir_fd=parent_fd)
        else:
            os.mkfifo(name, entry.mode & 0o777, dir_fd=parent_fd)
        if self.keep_owners and (self.always_chown or entry.uid or entry.gid):
            _check_owner(entry)
            os.chown(name, entry.uid, entry.gid, dir_fd=parent_fd, follow_symlinks=False)
        if entry.kind == tar.FIFO and entry.mode & 0o7000:
            os.chmod(name, entry.mode, dir_fd=parent_fd)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    def _make_hard_link(self, entry: tar.Entry, folder: bytes, name: bytes) -> None:
        source_folder, source_name = split_path(entry.link)
        source = source_folder + b"/" + source_name if source_folder else source_name
        status = self._lstat(source_folder, source_name)
        if status is None:
            self._copy_up(entry, source, source_folder, source_name)
        elif stat.S_ISDIR(status.st_mode) or whiteout.is_whiteout(status):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "removed by the same layer"
            raise ImageError(f"{entry.shown} cannot be a hard link to {os.fsdecode(source)!r}, which is {what}.")
        parent_fd = self._folder(folder)
        if (folder, name) == (source_folder, source_name):
            return
        if _lstat_or_none(name, parent_fd) is not None:
            self._make_room(name, parent_fd)
        source_fd = self._folder(source_folder)
        os.link(source_name, name, src_dir_fd=source_fd, dst_dir_fd=self._folder(folder), follow_symlinks=False)

    def _lstat(self, folder: bytes, name: bytes) -> os.stat_result | None:
        """Return what stands at a place of this layer, without making the folders above."""
        try:
            with _closing(open_in_root(self.root_fd, os.fsdecode(folder) or ".", _FOLDER_FLAGS & ~os.O_NOFOLLOW)) as fd:
                return _lstat_or_none(name, fd)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _copy_up(self, entry: tar.Entry, source: bytes, folder: bytes, name: bytes) -> None:
        """Take the file at ``source`` over from a lower layer: a hard link's two names must be in one layer."""
        found = self.lowers.file(source) if self.is_layer else None
        if found is None:
            raise ImageError(f"{entry.shown} is a hard link to {os.fsdecode(source)!r}, which is not there.")
        copied, lower_fd = found
        copied.name = source
        with _closing(lower_fd):
            self._count(copied)
            parent_fd = self._folder(folder)
            fd = os.open(name, _FILE_FLAGS, copied.mode & 0o777, dir_fd=parent_fd)
            with _closing(fd):
                while os.copy_file_range(lower_fd, fd, 1 << 24):
                    pass
                if self.keep_owners:
                    os.fchown(fd, copied.uid, copied.gid)
                os.fchmod(fd, copied.mode)
                self._set_attributes(fd, copied)
                os.utime(fd, ns=(copied.mtime_ns, copied.mtime_ns))

    def _apply_whiteout(self, folder: bytes, name: bytes) -> None:
        if name == whiteout.OPAQUE_MARKER:
            if folder:
                whiteout.make_opaque(self._folder(folder))
            else:
                # OverlayFS reads no mark on a layer's root; whoever stacks the layers stops at this one.
                self.opaque_root = True
            return
        hidden = whiteout.hidden_name(name)
        if hidden is None:
            return
        parent_fd = self._folder(folder)
        status = _lstat_or_none(hidden, parent_fd)
        if status is None:
            whiteout.make_whiteout(hidden, parent_fd)
        elif stat.S_ISDIR(status.st_mode):
            with _closing(os.open(hidden, _FOLDER_FLAGS, dir_fd=parent_fd)) as fd:
                whiteout.make_opaque(fd)

    def _set_times(self) -> None:
        """Set the times of folders, which change with each file made in them."""
        for path, mtime_ns in self._times.items():
            folder, name = split_path(path)
            try:
                if not name:
                    os.utime(self.root_fd, ns=(mtime_ns, mtime_ns))
                elif stat.S_ISDIR(os.lstat(name, dir_fd=self._existing(folder)).st_mode):
                    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=self._existing(folder), follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise  # else it, or a folder above it, was replaced meanwhile
        self._times.clear()


def _check_owner(entry: tar.Entry) -> None:
    # 4294967295 is -1 to chown(2), which leaves the owner as it is.
    if max(entry.uid, entry.gid) >= _MOST_IDS:
        raise _no_such_owner(entry)


def _no_such_owner(entry: tar.Entry) -> ImageError:
    return ImageError(
        f"{entry.shown} belongs to {entry.uid}:{entry.gid}, but a container here has only ids below {_MOST_IDS}."
    )


def _lstat_or_none(name: bytes, dir_fd: int) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return None


class _closing:
    """Closes a descriptor at the end of a block."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
