"""Archives that want out, lie, or have no end: none of them writes beside the target, each refusal names what it is about."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from labkit.errors import ImageError
from labkit.image.confined import owners_here
from labkit.image.rootfs import remove_tree
from labkit.image.unpack import UnpackLimits, unpack
from tests.image.tars import FILE, HOSTILE, Hostile, entry, tar
from tests.support import requires

pytestmark = requires("userns")
LIMITS = UnpackLimits(total_bytes=64 << 20, entries=5000)


@pytest.fixture
def target(tmp_path: Path):
    """A folder to unpack into, with something precious beside it that must stay as it is."""
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "precious").write_text("precious")
    folder = tmp_path / "target"
    folder.mkdir()
    yield folder
    assert sorted(os.listdir(tmp_path)) == ["beside", "target"]
    assert (beside / "precious").read_text() == "precious"
    remove_tree(folder)


def everything_below(folder: Path) -> list[Path]:
    found, waiting = [], [folder]
    while waiting:
        try:
            inner = list(waiting.pop().iterdir())
        except (PermissionError, OSError):
            continue  # too deep for a path, or a subordinate id's
        found += inner
        waiting += [path for path in inner if path.is_dir() and not path.is_symlink()]
    return found


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name.replace(" ", "-"))
def test_nothing_leaves_the_target_and_a_refusal_says_why(hostile: Hostile, target: Path) -> None:
    if "65536" in (hostile.refused or "") and not owners_here().has_range:
        pytest.skip("with a single id the owners of an archive do not matter")
    data = hostile.data if isinstance(hostile.data, bytes) else hostile.data()
    witness = sorted(os.listdir("/etc")), sorted(name for name in os.listdir("/tmp") if "labkit-out" in name)
    if hostile.refused is None:
        unpack(io.BytesIO(data), target, limits=LIMITS)
    else:
        with pytest.raises(ImageError) as caught:
            unpack(io.BytesIO(data), target, limits=LIMITS)
        assert hostile.refused in str(caught.value)
        assert "Traceback" not in str(caught.value)
    assert (sorted(os.listdir("/etc")), sorted(n for n in os.listdir("/tmp") if "labkit-out" in n)) == witness
    for path in everything_below(target):
        status = path.lstat()
        is_device = stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)
        assert not is_device or (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 and ".wh." in repr(data))
        assert not (status.st_uid == 0 and status.st_mode & stat.S_ISUID)
        if not path.is_symlink() and os.access(path, os.R_OK) and not stat.S_ISFIFO(status.st_mode):
            assert not any(name.startswith(("trusted.", "security.selinux")) for name in os.listxattr(path))


def test_there_are_more_than_sixty_of_them() -> None:
    assert len(HOSTILE) >= 60
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE)


def test_a_set_uid_file_of_roots_belongs_to_nobody_on_the_host(target: Path) -> None:
    unpack(io.BytesIO(tar(entry(FILE, "su", b"x", mode=0o6755))), target)
    status = (target / "su").stat()
    assert stat.S_IMODE(status.st_mode) == 0o6755
    assert status.st_uid == (0x7000_0000 if os.geteuid() == 0 else os.geteuid())


def test_the_limit_of_entries_names_the_one_that_passes_it(target: Path) -> None:
    data = tar(*(entry(FILE, f"file-{n}") for n in range(20)))
    with pytest.raises(ImageError, match=r"'file-10'.*limit of 10 entries"):
        unpack(io.BytesIO(data), target, limits=UnpackLimits(entries=10))


def test_the_limit_of_bytes_names_the_entry_before_it_is_written(target: Path) -> None:
    data = tar(entry(FILE, "small", b"x" * 10), entry(FILE, "large", bytes(4 << 20)))
    with pytest.raises(ImageError, match=r"'large'.*limit of 1048576 bytes"):
        unpack(io.BytesIO(data), target, limits=UnpackLimits(total_bytes=1 << 20))
    assert not (target / "large").exists()


def test_a_stream_that_fails_in_the_middle_is_told_with_the_entry_it_had_reached(target: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1500:
                raise ImageError("The blob is damaged.")
            return super().read(min(size or 512, 512))

    with pytest.raises(ImageError, match=r"damaged.*'second'"):
        unpack(Broken(tar(entry(FILE, "first", b"x"), entry(FILE, "second", b"y" * 5000))), target)


def test_a_target_that_is_no_folder_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        unpack(io.BytesIO(tar()), Path("/dev/null"))
