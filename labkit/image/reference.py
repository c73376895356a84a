"""References: the names of images as people write them, ``registry/account/name:tag@digest``.

``busybox`` is short for ``docker.io/library/busybox:latest``: the defaults are Docker's, and every tool knows them. The first part is a
registry only if it looks like a host (a dot, a colon, an upper-case letter, or ``localhost``); otherwise it is an account. A tag can be moved to
another image, a digest cannot: it is the hash of what it names. With a digest no tag is assumed.

Leaves out: other default registries, search lists and short-name aliases (containers-registries.conf(5)).
See: OCI Distribution Specification, "Pulling manifests" (the grammar of names and tags).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from labkit.errors import InvalidSpec
from labkit.image.descriptor import is_digest

__all__ = ["DEFAULT_REGISTRY", "DEFAULT_TAG", "Reference", "is_repository", "is_tag"]

DEFAULT_REGISTRY, DEFAULT_ACCOUNT, DEFAULT_TAG = "docker.io", "library", "latest"
_LONGEST_REPOSITORY = 255

_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_WORD}(?:/{_WORD})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_HEX_ID = re.compile(r"[0-9a-f]{64}")


def is_repository(text: str) -> bool:
    """Say whether ``text`` can be a repository's name (without a registry): ``library/busybox``."""
    return len(text) <= _LONGEST_REPOSITORY and _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Say whether ``text`` can be a tag: at most 128 letters, digits, ``_``, ``.``, ``-``, not ``.`` or ``-`` first."""
    return _TAG.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One image's name, complete: a registry, a repository on it, and a tag or a digest or both."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the reference that ``text`` is short for. Raises: InvalidSpec saying which part cannot be."""
        name, _, digest = text.partition("@")
        if "@" in text and not is_digest(digest):
            raise InvalidSpec(f"{text!r} does not end in a digest: after '@' write sha256: and 64 hexadecimal digits.")
        name, tag = _split_tag(name)
        if tag is not None and not is_tag(tag):
            raise InvalidSpec(
                f"{text!r} has no valid tag: write up to 128 letters, digits, '_', '.' and '-' after ':'."
            )
        registry, repository = _split_registry(name)
        _check_name(text, registry, repository)
        if tag is None and not digest:
            tag = DEFAULT_TAG
        return cls(registry, repository, tag, digest or None)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest: ``docker.io/library/busybox``."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it, without tag and digest: ``busybox``."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        account, _, rest = self.repository.partition("/")
        # The short form must read back as the same: an account that looks like a host would become the registry.
        if account == DEFAULT_ACCOUNT and rest and "/" not in rest:
            return rest
        return self.name if "/" in self.repository and _looks_like_host(account) else self.repository

    @property
    def familiar(self) -> str:
        """The shortest text that means the same: ``busybox:latest``."""
        return self.familiar_name + self._suffix()

    @property
    def canonical(self) -> str:
        """The whole name, nothing left to defaults: ``docker.io/library/busybox:latest``."""
        return self.name + self._suffix()

    def with_tag(self, tag: str) -> Reference:
        """Return the same repository's image with ``tag``, without a digest. Raises: InvalidSpec."""
        if not is_tag(tag):
            raise InvalidSpec(f"{tag!r} is no tag: write up to 128 letters, digits, '_', '.' and '-'.")
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: str) -> Reference:
        """Return the same repository's image with ``digest``, without a tag. Raises: InvalidSpec."""
        if not is_digest(digest):
            raise InvalidSpec(f"{digest!r} is no digest: write sha256: and 64 hexadecimal digits.")
        return replace(self, tag=None, digest=digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.familiar


def _split_tag(name: str) -> tuple[str, str | None]:
    """Split at the last colon, unless it belongs to a port: a tag holds no slash."""
    before, colon, after = name.rpartition(":")
    if not colon or "/" in after or after.endswith("]"):
        return name, None
    return before, after


def _looks_like_host(word: str) -> bool:
    return "." in word or ":" in word or word == "localhost" or word.lower() != word


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and _looks_like_host(first):
        registry, repository = first, rest
    else:
        registry, repository = DEFAULT_REGISTRY, name
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY  # the name it had when the default came up
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"{DEFAULT_ACCOUNT}/{repository}"
    return registry, repository


def _check_name(text: str, registry: str, repository: str) -> None:
    if _HEX_ID.fullmatch(text):
        raise InvalidSpec(f"{text!r} cannot be a name: 64 hexadecimal digits are an image's id.")
    if is_repository(repository) and _REGISTRY.fullmatch(registry):
        return
    if repository.lower() != repository:
        raise InvalidSpec(f"{text!r} cannot name an image: a repository is in lower case, as in {text.lower()!r}.")
    if len(repository) > _LONGEST_REPOSITORY:
        raise InvalidSpec(f"A repository's name has at most {_LONGEST_REPOSITORY} characters, not {len(repository)}.")
    if not _REGISTRY.fullmatch(registry):
        raise InvalidSpec(f"{text!r}: {registry!r} is no registry: write a host name and, if need be, :PORT.")
    raise InvalidSpec(
        f"{text!r} cannot name an image: write NAME, ACCOUNT/NAME or HOST/ACCOUNT/NAME in lower-case letters, digits and"
        " single '.', '_' or '-' between them, then :TAG or @sha256:DIGEST."
    )
