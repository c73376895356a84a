"""Instructions that change only how the image is run: each one turns a `RunConfig` into another.

``ENV``, ``CMD``, ``ENTRYPOINT``, ``LABEL``, ``EXPOSE``, ``VOLUME``, ``USER``, ``STOPSIGNAL``, ``SHELL`` and ``HEALTHCHECK`` make no layer. They
are in the image's configuration, and so in its id, and one line of the history each. ``WORKDIR`` is one of them, too; that a build also makes
the folder is `labkit.image.build.stagework`'s part.

See: OCI Image Specification, config.md; dockerfile(5).
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from labkit.image.build import instructions as made
from labkit.image.build.errors import ContainerfileError
from labkit.image.build.variables import expand, expand_words
from labkit.image.config import RunConfig

__all__ = ["DEFAULT_SHELL", "Settings", "apply", "set_variables"]

DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(?:[^/]*:)?(\d{1,5})(?:-(\d{1,5}))?(?:/(\w+))?\Z")
_LARGEST_PORT = 65_535


class Settings:
    """What an instruction is read with: the values of variables, and the file's escape character."""

    def __init__(self, variables: Mapping[str, str], escape: str = "\\") -> None:
        self.variables = dict(variables)
        self.escape = escape

    def text(self, text: str, line: int) -> str:
        """Return ``text`` with variables replaced and quotes taken away."""
        return expand(text, self.variables, escape=self.escape, line=line)

    def words(self, text: str, line: int) -> list[str]:
        """Return the words of ``text`` with variables replaced."""
        return expand_words(text, self.variables, escape=self.escape, line=line)


def set_variables(env: tuple[str, ...], pairs: Mapping[str, str]) -> tuple[str, ...]:
    """Return the environment with ``pairs`` set: a known name keeps its place, a new one comes last."""
    left = dict(pairs)
    kept = []
    for entry in env:
        name = entry.partition("=")[0]
        kept.append(f"{name}={left.pop(name)}" if name in left else entry)
    return (*kept, *(f"{name}={value}" for name, value in left.items()))


def apply(
    instruction: made.Instruction, config: RunConfig, settings: Settings, *, cmd_was_set: bool
) -> tuple[RunConfig, str]:
    """Return the configuration after ``instruction``, and the instruction with its variables replaced.

    ``cmd_was_set`` tells whether this stage had a CMD: an ENTRYPOINT takes away one that comes from the base image.
    Raises: ContainerfileError for a value that cannot be.
    """
    if isinstance(instruction, made.Command):
        return _command(instruction, config, cmd_was_set=cmd_was_set)
    change = _CHANGES.get(type(instruction))
    if change is None:
        raise ContainerfileError(f"{instruction.keyword} changes no setting.", line=instruction.line)
    return change(instruction, config, settings)


def _command(instruction: made.Command, config: RunConfig, *, cmd_was_set: bool) -> tuple[RunConfig, str]:
    words = instruction.words
    if instruction.in_shell and words:
        words = (*(config.shell or DEFAULT_SHELL), *words)
    text = f"{instruction.keyword} {_as_json(words)}"
    if instruction.keyword == "CMD":
        return replace(config, cmd=words or None), text
    return replace(config, entrypoint=words, cmd=config.cmd if cmd_was_set else None), text


def _env(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    line = instruction.line
    pairs = {settings.text(name, line): settings.text(value, line) for name, value in instruction.pairs}
    if "" in pairs:
        raise ContainerfileError("ENV names can not be blank.", line=line)
    return replace(config, env=set_variables(config.env, pairs)), _pairs_text("ENV", pairs)


def _label(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    line = instruction.line
    pairs = {settings.text(name, line): settings.text(value, line) for name, value in instruction.pairs}
    return replace(config, labels={**config.labels, **pairs}), _pairs_text("LABEL", pairs)


def _user(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    user = settings.text(instruction.user, instruction.line)
    if not user:
        raise ContainerfileError("USER requires exactly one argument, and this one is empty.", line=instruction.line)
    return replace(config, user=user), f"USER {user}"


def _workdir(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    path = settings.text(instruction.path, instruction.line) or "/"
    path = posixpath.normpath(posixpath.join(config.working_dir or "/", path))
    return replace(config, working_dir=path), f"WORKDIR {path}"


def _expose(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    words = settings.words(instruction.ports, instruction.line)
    ports = [port for word in words for port in _ports(word, instruction.line)]
    return replace(config, exposed_ports=_union(config.exposed_ports, ports)), f"EXPOSE {' '.join(words)}"


def _ports(word: str, line: int) -> list[str]:
    match = _PORT.match(word)
    protocol = (match.group(3) or "tcp").lower() if match else ""
    if match is None or protocol not in ("tcp", "udp", "sctp"):
        raise ContainerfileError(f"invalid containerPort: {word}: write PORT or PORT/tcp, /udp or /sctp.", line=line)
    first = int(match.group(1))
    last = int(match.group(2) or first)
    if not 0 < first <= last <= _LARGEST_PORT:
        raise ContainerfileError(f"invalid containerPort: {word}: ports go from 1 to {_LARGEST_PORT}.", line=line)
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _volume(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    paths = [settings.text(path, instruction.line).strip() for path in instruction.paths]
    if not all(paths):
        raise ContainerfileError("VOLUME specified can not be an empty string.", line=instruction.line)
    return replace(config, volumes=_union(config.volumes, paths)), f"VOLUME {_as_json(paths)}"


def _union(before: tuple[str, ...], new: list[str]) -> tuple[str, ...]:
    return tuple(sorted({*before, *new}))


def _stopsignal(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    name = settings.text(instruction.signal, instruction.line)
    known = {item.name for item in signal.Signals} | {f"SIGRTMIN+{n}" for n in range(32)}
    plain = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    is_number = name.isascii() and name.isdigit() and 0 < int(name) <= signal.NSIG
    if not is_number and plain not in known:
        raise ContainerfileError(
            f"invalid signal: {name}: write a name, as in SIGTERM, or a number.", line=instruction.line
        )
    return replace(config, stop_signal=name), f"STOPSIGNAL {name}"


def _shell(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    return replace(config, shell=instruction.words), f"SHELL {_as_json(instruction.words)}"


def _healthcheck(instruction: Any, config: RunConfig, settings: Settings) -> tuple[RunConfig, str]:
    check: dict[str, Any] = {"Test": list(instruction.test)} | dict(instruction.durations_ns)
    if instruction.retries:
        check["Retries"] = instruction.retries
    return replace(config, healthcheck=check), instruction.text


def _pairs_text(keyword: str, pairs: Mapping[str, str]) -> str:
    return " ".join([keyword, *(f"{name}={value}" for name, value in pairs.items())])


def _as_json(words: Any) -> str:
    return json.dumps(list(words), ensure_ascii=False)


_CHANGES: dict[type, Callable[[Any, RunConfig, Settings], tuple[RunConfig, str]]] = {
    made.Env: _env,
    made.Expose: _expose,
    made.Healthcheck: _healthcheck,
    made.Label: _label,
    made.Shell: _shell,
    made.Stopsignal: _stopsignal,
    made.User: _user,
    made.Volume: _volume,
    made.Workdir: _workdir,
}
