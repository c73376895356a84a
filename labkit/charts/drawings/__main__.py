"""``python -m labkit.charts.drawings [FOLDER]``: draw the course's pictures again, into notebooks/figures unless told otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

from labkit.charts.drawings import PICTURES, write_all

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Write the pictures and say which have changed; return 0, or 2 if the folder is not there."""
    folder = Path(arguments[0] if arguments else "notebooks/figures")
    if not folder.is_dir():
        print(f"labkit: there is no folder {folder}: run this in the project's folder, or name one.", file=sys.stderr)
        return 2
    changed = write_all(folder)
    print(
        f"{len(PICTURES)} pictures in {folder}; {len(changed)} changed: {', '.join(path.stem for path in changed) or 'none'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
