"""Wheels: a Python package as one zip file, written always the same way.

A wheel is a zip with the package's folder and a folder ``NAME-VERSION.dist-info`` that says what it is. To install one, it is unpacked
into ``site-packages``; nothing is executed.

Leaves out: scripts, data files, compiled packages, the hashes in RECORD.
See: PEP 427; Python Packaging User Guide, "Binary distribution format".
"""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["write_wheel"]

#: The first moment that a zip can name.
_TIME = (1980, 1, 1, 0, 0, 0)


def write_wheel(package: Path, version: str, folder: Path) -> Path:
    """Write the pure Python package in ``package`` (a folder of modules) as a wheel into ``folder``; return its path."""
    name = package.name
    info = f"{name}-{version}.dist-info"
    entries = {f"{name}/{path.name}": path.read_bytes() for path in sorted(package.glob("*.py"))}
    entries[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    entries[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: labkit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    entries[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*entries, f"{info}/RECORD"]).encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for path, data in entries.items():
            member = zipfile.ZipInfo(path, _TIME)
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return wheel
