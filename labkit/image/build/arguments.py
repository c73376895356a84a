"""Build arguments: which ARG has which value where.

An ARG before the first FROM is *global*: FROM lines see it, stages only if they repeat its name. An ARG in a stage is seen by what
follows in that stage and in stages built on it. The value comes from ``--build-arg``, else from the default. ENV wins over ARG.

A RUN command finds the arguments in its environment; they are in no image, but they are in the history and in the key of the cache.
The proxy variables need no ARG, and are in neither.

See: dockerfile(5), "ARG"; "Predefined ARGs".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from labkit.image.build import instructions as made
from labkit.image.build.variables import expand
from labkit.image.descriptor import Platform

__all__ = ["Arguments", "PROXIES", "platform_arguments"]

PROXIES = tuple(
    name
    for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (word, word.lower())
)
_ALWAYS_KNOWN = (*PROXIES, "SOURCE_DATE_EPOCH")


def platform_arguments(platform: Platform) -> dict[str, str]:
    """Return the arguments that tell for which machine, and on which, is built; here they are the same."""
    values = {"PLATFORM": str(platform), "OS": platform.os, "ARCH": platform.architecture, "VARIANT": platform.variant}
    return {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in values.items()}


@dataclass(slots=True)
class Arguments:
    """The arguments in force at one place. ``given`` come from the command line; `declare` is an ARG instruction."""

    given: Mapping[str, str]
    outer: Mapping[str, str]
    values: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    escape: str = "\\"

    @classmethod
    def for_file(cls, given: Mapping[str, str], platform: Platform, *, escape: str) -> Arguments:
        """Return the global arguments, the platform's included."""
        known = platform_arguments(platform)
        return cls(given, known, dict(known), escape=escape)

    def for_stage(self, inherited: Mapping[str, str]) -> Arguments:
        """Return the arguments at the beginning of a stage; ``self`` are the global ones."""
        return Arguments(self.given, self.values, dict(inherited), self.used, self.escape)

    def declare(self, instruction: made.Arg, env: Mapping[str, str]) -> None:
        """Carry out an ARG. Raises: ContainerfileError for a default that cannot be expanded."""
        for name, default in instruction.pairs:
            name = expand(name, self.seen(env), escape=self.escape, line=instruction.line)
            if name in self.given:
                self.values[name] = self.given[name]
                self.used.add(name)
            elif default is not None:
                self.values[name] = expand(default, self.seen(env), escape=self.escape, line=instruction.line)
            elif name in self.outer:
                self.values[name] = self.outer[name]

    def seen(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the value of each variable for an instruction: arguments, and the image's environment, which wins."""
        return {**self.values, **env}

    def for_run(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the arguments that a RUN command finds in its environment and that count for the cache."""
        return {name: value for name, value in sorted(self.values.items()) if name not in env}

    def proxies(self) -> dict[str, str]:
        """Return the proxy variables that were given; a RUN finds them, too."""
        return {name: self.given[name] for name in PROXIES if name in self.given}

    def unused(self) -> Sequence[str]:
        """Return the arguments that were given and that no ARG asked for: most often a typing error."""
        return sorted(name for name in self.given if name not in self.used and name not in _ALWAYS_KNOWN)
