"""Take the pictures of the README and the documents: ``python -m tests.browser.pictures`` writes docs/images/view-NN.png.

Each is the live view of a lesson while it is used, in the real JupyterLab of `make lab`, with at most 256 colours and less than 200 kB.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.browser.course import look_at_all
from tests.browser.lab import Lab, copy_lessons
from tests.support import PROJECT

__all__ = ["MOST_BYTES", "PICTURED", "main", "shrink"]

PICTURED = (
    "03_namespaces", "04_cgroups", "07_start_up_and_density", "08_docker_architecture", "09_images_and_layers",
    "13_immutable_infrastructure",
)  # fmt: skip
FOLDER = PROJECT / "docs/images"
MOST_BYTES = 200_000


def shrink(source: Path, target: Path) -> int:
    """Write ``source`` with 256 colours to ``target`` and return its size."""
    from PIL import Image  # comes with matplotlib

    with Image.open(source) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    return target.stat().st_size


def main() -> int:
    """Run the lessons that are pictured; return 1 if one failed or a picture became too large."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="labkit-pictures-") as name:
        folder = Path(name)
        copy_lessons("[0-9]*", folder / "notebooks")
        (folder / "policy.toml").write_text(f'[mounts]\nwork = "{folder / "work"}"\n')
        environ = {"LABKIT_SANDBOX_POLICY": str(folder / "policy.toml")}
        command = (sys.executable, "-P", "-m", "labkit.sandbox.server")
        with Lab(folder / "notebooks", command=command, environ=environ, kernel_python=None) as lab:
            found = look_at_all(lab, PICTURED, shots=folder / "shots")
        for lesson in found.values():
            picture = FOLDER / f"view-{lesson.name[:2]}.png"
            size = 0 if lesson.failed else shrink(folder / "shots" / picture.name, picture)
            print(f"{lesson.name}: {lesson.failed or f'{size // 1000} kB'}")
            failed += bool(lesson.failed) or size > MOST_BYTES
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
