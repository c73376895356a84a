"""Who may log in: account names with hashed passwords, in one file that only its owner may read.

A password is never stored. What is stored is ``scrypt(password, salt)``: a function that is slow and needs much memory on purpose, so
that whoever steals the file can try only some passwords a second. The salt is random for each account: equal passwords look
different, and tables made beforehand are of no use.

Leaves out: password rules beyond a least length, locking after wrong passwords (each try costs the caller a tenth of a second).
See: RFC 7914 (scrypt); Python's hashlib.scrypt; rename(2).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import InvalidSpec, InvalidState
from labkit.image.reference import is_repository
from labkit.image.registry.privatefile import changing

__all__ = ["Accounts", "Scrypt"]

_LEAST_LETTERS = 8
_MOST_BYTES = 1024
#: A wrong name must take as long as a wrong password, or the time would tell which names exist.
_NOBODY = "scrypt$32768$8$1$AAAAAAAAAAAAAAAAAAAAAA==$" + "A" * 43 + "="
_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Scrypt:
    """The cost of one try: memory is 128 * n * r bytes (32 MiB here), time grows with n."""

    n: int = 32768
    r: int = 8
    p: int = 1

    def hash(self, password: str, salt: bytes) -> bytes:
        """Return the hash of ``password``."""
        most_bytes = 256 * self.n * self.r
        return hashlib.scrypt(password.encode(), salt=salt, n=self.n, r=self.r, p=self.p, maxmem=most_bytes, dklen=32)


class Accounts:
    """The accounts in the file ``path``, which need not exist; read anew whenever it has changed."""

    def __init__(self, path: Path, *, cost: Scrypt | None = None) -> None:
        self._path, self._cost = path, cost or Scrypt()
        self._hashes: dict[str, str] = {}
        self._seen: tuple[int, int, int] | None = None
        self._secret = secrets.token_bytes(32)
        self._right: set[bytes] = set()
        self._lock = threading.Lock()
        self._tries = threading.BoundedSemaphore(2)  # each holds 32 MiB

    @property
    def in_use(self) -> bool:
        """True once there has been an account: from then on, whoever changes something logs in."""
        return self._path.exists()

    def names(self) -> list[str]:
        """Return the names of the accounts."""
        return sorted(self._read())

    def set(self, name: str, password: str) -> None:
        """Add the account ``name``, or give it a new password. Raises: InvalidSpec for a name or a password that cannot be."""
        if not is_repository(name) or "/" in name:
            raise InvalidSpec(f"{name!r} is no account name: use small letters and digits, with . _ or - between them.")
        if len(password) < _LEAST_LETTERS or len(password.encode()) > _MOST_BYTES:
            raise InvalidSpec(f"A password has at least {_LEAST_LETTERS} letters and at most {_MOST_BYTES} bytes.")
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in password):
            raise InvalidSpec("A password holds no control characters: HTTP could not carry them.")
        salt = secrets.token_bytes(16)
        words = (
            "scrypt",
            self._cost.n,
            self._cost.r,
            self._cost.p,
            _text(salt),
            _text(self._cost.hash(password, salt)),
        )
        with changing(self._path, self._read) as hashes:
            hashes[name] = "$".join(map(str, words))

    def remove(self, name: str) -> None:
        """Remove the account ``name``. Its images stay. Raises: InvalidState if there is none."""
        with changing(self._path, self._read) as hashes:
            if hashes.pop(name, None) is None:
                raise InvalidState(f"There is no account {name}: `labkit registry accounts` lists them.")

    def is_right(self, name: str, password: str) -> bool:
        """Tell whether ``password`` is that of the account ``name``; what was right is remembered, as a keyed hash."""
        stored = self._read().get(name, _NOBODY)
        key = hmac.digest(self._secret, json.dumps([name, password, stored]).encode(), "sha256")
        with self._lock:
            if key in self._right:
                return True
        if len(password.encode()) > _MOST_BYTES:
            return False
        with self._tries:
            _, n, r, p, salt, wanted = stored.split("$")
            found = Scrypt(int(n), int(r), int(p)).hash(password, base64.b64decode(salt))
        if not hmac.compare_digest(found, base64.b64decode(wanted)) or stored is _NOBODY:
            return False
        with self._lock:
            if len(self._right) >= _KEPT:
                self._right.clear()
            self._right.add(key)
        return True

    def _read(self) -> dict[str, str]:
        try:
            info = self._path.stat()
        except FileNotFoundError:
            return {}
        seen = (info.st_ino, info.st_size, info.st_mtime_ns)
        with self._lock:
            if seen != self._seen:
                self._hashes, self._seen = _parse(self._path), seen
            return dict(self._hashes)


def _parse(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidState(f"{path} is damaged ({error}): remove it and add the accounts again.") from error
    if not isinstance(found, dict) or not all(
        isinstance(text, str) and text.count("$") == 5 for text in found.values()
    ):
        raise InvalidState(f"{path} does not hold accounts: remove it and add them again.")
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
