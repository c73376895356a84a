"""The policy of the sandbox: what a student's kernel may use and see, as one text that a teacher can read.

::

    [limits]
    memory = "1 GiB"            # all memory of a student together, files in memory included
    pids = 512
    [mounts]
    notebooks = "overlay"       # or "read-only", or "keep": changes are there again next time
    [network]
    mode = "none"               # or "outgoing"

The first of these files that exists counts, and what it does not name keeps its default: the one in ``LABKIT_SANDBOX_POLICY``,
``~/.config/labkit/sandbox.toml``, ``/etc/labkit/sandbox.toml``. `KEYS` has every key with its default, range and meaning;
``python -m labkit.sandbox.policy`` prints the policy in force as such a file. The defaults fit a machine of 2 GB and one CPU.

Leaves out: a policy for each student, which the server's own users give.
See: https://toml.io, cgroups(7), getrlimit(2).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labkit.errors import InvalidSpec
from labkit.units import GiB, KiB, MiB, TiB, format_bytes, parse_bytes

__all__ = ["KEYS", "Key", "Policy", "as_text", "load", "parse", "policy_files"]

Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its place in the file, what it is for, and what it may be.

    ``kind`` is "size", "count", "number", "switch", "folder", "folders" or "choice"; ``least`` and ``most`` bound the first three.
    """

    field: str
    section: str
    name: str
    kind: str
    meaning: str
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The key as errors and people name it: ``limits.memory``."""
        return f"{self.section}.{self.name}"

    @property
    def range(self) -> str:
        """What the key may be, in words."""
        if self.kind == "size":
            return f'a size from "{format_bytes(int(self.least))}" to "{format_bytes(int(self.most))}"'
        if self.kind == "count":
            return f"a whole number from {self.least:g} to {self.most:g}"
        if self.kind == "number":
            return f"a number from {self.least:g} to {self.most:g}"
        texts = {
            "switch": "true or false",
            "folder": 'an absolute path, or ""',
            "folders": "a list of absolute paths",
            "choice": "one of " + ", ".join(f'"{choice}"' for choice in self.choices),
        }
        return texts[self.kind]


@dataclass(frozen=True, slots=True)
class Policy:
    """A checked policy; sizes are in bytes. `load` gives the one in force."""

    backend: Literal["auto", "namespaces", "vm"] = "auto"
    require: Literal["any", "full"] = "any"
    memory_bytes: int = GiB
    pids: int = 512
    cpus: float = 2.0
    open_files: int = 4096
    file_size_bytes: int = GiB
    home_bytes: int = 256 * MiB
    home_files: int = 20_000
    work_bytes: int = GiB
    work_files: int = 50_000
    temporary_bytes: int = 256 * MiB
    temporary_files: int = 20_000
    shared_memory_bytes: int = 64 * MiB
    notebooks: Literal["overlay", "read-only", "keep"] = "overlay"
    work: str = ""
    folders: tuple[str, ...] = ()
    network: Literal["none", "outgoing"] = "none"
    namespaces: int = 2000
    no_new_privs: bool = True
    source: str = "defaults"


KEYS = (
    Key("backend", "sandbox", "backend", "choice", "what it is made of; auto: namespaces, else vm", choices=("auto", "namespaces", "vm")),
    Key(
        "require", "sandbox", "require", "choice", "full: refuse to start a weaker sandbox than a full one",
        choices=("any", "full"),
    ),
    Key("memory_bytes", "limits", "memory", "size", "all memory together, files in memory included", 192 * MiB, TiB),
    Key("pids", "limits", "pids", "count", "processes and threads", 32, 4_194_304),
    Key("cpus", "limits", "cpus", "number", "CPUs; more than the machine has means all", 0.1, 8192),
    Key("open_files", "limits", "open_files", "count", "descriptors of one process", 256, 1_048_576),
    Key("file_size_bytes", "limits", "file_size", "size", "the largest file that can be written", MiB, 16 * TiB),
    Key("home_bytes", "disk", "home", "size", "the home folder, which is memory", MiB, TiB),
    Key("home_files", "disk", "home_files", "count", "files and folders in it", 100, 100_000_000),
    Key("work_bytes", "disk", "work", "size", "~/work, which lies on the machine's disk", MiB, 16 * TiB),
    Key("work_files", "disk", "work_files", "count", "files and folders in it", 100, 100_000_000),
    Key("temporary_bytes", "disk", "temporary", "size", "/tmp, /run, and changes to the notebook folder, each", MiB, TiB),
    Key("temporary_files", "disk", "temporary_files", "count", "files and folders in each of them", 100, 100_000_000),
    Key("shared_memory_bytes", "disk", "shared_memory", "size", "/dev/shm", 64 * KiB, TiB),
    Key(
        "notebooks", "mounts", "notebooks", "choice", "the notebook folder: changes are lost, refused or kept",
        choices=("overlay", "read-only", "keep"),
    ),
    Key("work", "mounts", "work", "folder", 'the folder behind ~/work, which persists; "": work beside the notebooks'),
    Key("folders", "mounts", "folders", "folders", "further folders to show, read-only"),
    Key("network", "network", "mode", "choice", "none, or outgoing connections", choices=("none", "outgoing")),
    Key("namespaces", "nesting", "namespaces", "count", "namespaces of each kind inside", 0, 1_000_000),
    Key("no_new_privs", "nesting", "no_new_privs", "switch", "set-uid programs give nothing inside"),
)  # fmt: skip


def policy_files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files in which a policy is looked for, first one first; a named one must be there."""
    named = environ.get("LABKIT_SANDBOX_POLICY", "")
    if named:
        return [Path(named)]
    config = environ.get("XDG_CONFIG_HOME", "")
    base = Path(config) if config.startswith("/") else Path("~/.config").expanduser()
    return [base / "labkit/sandbox.toml", Path("/etc/labkit/sandbox.toml")]


def load(environ: Mapping[str, str] = os.environ) -> Policy:
    """Return the policy in force. Raises: InvalidSpec naming file, key and allowed range."""
    for path in policy_files(environ):
        try:
            text = path.read_text()
        except (FileNotFoundError, NotADirectoryError):
            if environ.get("LABKIT_SANDBOX_POLICY"):
                raise InvalidSpec(f"The policy {path}, which LABKIT_SANDBOX_POLICY names, does not exist.") from None
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSpec(f"The policy {path} cannot be read: {error}.") from error
        return parse(text, source=str(path))
    return Policy()


def parse(text: str, *, source: str = "the policy") -> Policy:
    """Return the policy that ``text`` (TOML) describes.

    Raises: InvalidSpec in one sentence with the key and what it may be.
    """
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(f"{source} is no TOML: {error}.") from error
    known = {key.title: key for key in KEYS}
    values: dict[str, Any] = {"source": source}
    for section, content in sections.items():
        if not isinstance(content, dict):
            raise InvalidSpec(
                f"{source}: {section!r} stands outside of a section; write it as [section], then key = value."
            )
        for name, value in content.items():
            key = known.get(f"{section}.{name}")
            if key is None:
                raise InvalidSpec(f"{source}: there is no key {section}.{name}; the keys are {', '.join(known)}.")
            values[key.field] = _checked(key, value, source)
    if "memory_bytes" in values:
        values.setdefault("home_bytes", min(Policy().home_bytes, values["memory_bytes"]))
    policy = Policy(**values)
    if policy.home_bytes > policy.memory_bytes:
        raise InvalidSpec(
            f"{source}: disk.home is {format_bytes(policy.home_bytes)}, but lives in memory, and limits.memory allows"
            f" {format_bytes(policy.memory_bytes)}: it may be at most that."
        )
    return policy


def _checked(key: Key, value: object, source: str) -> Value:
    try:
        if key.kind == "size" and isinstance(value, (str, int)) and not isinstance(value, bool):
            return int(_within(key, parse_bytes(value)))
        if key.kind == "count" and isinstance(value, int) and not isinstance(value, bool):
            return int(_within(key, value))
        if key.kind == "number" and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(_within(key, value))
        if key.kind == "switch" and isinstance(value, bool):
            return value
        if key.kind == "choice" and value in key.choices:
            return str(value)
        if key.kind == "folder" and isinstance(value, str) and (value == "" or _is_path(value)):
            return value
        if key.kind == "folders" and isinstance(value, list) and all(isinstance(v, str) and _is_path(v) for v in value):
            return tuple(value)
    except (InvalidSpec, ValueError):
        pass
    raise InvalidSpec(f"{source}: {key.title} is {value!r}, but must be {key.range}.")


def _within(key: Key, value: float) -> float:
    if not key.least <= value <= key.most:
        raise ValueError(key.title)
    return value


def _is_path(text: str) -> bool:
    return text.startswith("/") and ".." not in text.split("/") and "\0" not in text


def as_text(policy: Policy) -> str:
    """Return ``policy`` as the file that would give it, with what each key means."""
    lines = [f"# from {policy.source}"]
    section = ""
    for key in KEYS:
        if key.section != section:
            section = key.section
            lines.append(f"[{section}]")
        lines.append(f"{f'{key.name} = {_written(key, getattr(policy, key.field))}':<32}# {key.meaning}")
    return "\n".join(lines) + "\n"


def _written(key: Key, value: Value) -> str:
    if key.kind == "size" and isinstance(value, int):
        exact = next((f"{value // unit} {name}" for name, unit in _UNITS if value % unit == 0), str(value))
        return f'"{exact}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


_UNITS = (("TiB", TiB), ("GiB", GiB), ("MiB", MiB), ("KiB", KiB), ("B", 1))


if __name__ == "__main__":
    print(as_text(load()), end="")
