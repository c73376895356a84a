"""The kernel's key rings: small secrets that the kernel keeps for users, sessions and processes.

Every process has a session keyring, inherited by its children, and every user has one. Which user that is depends on the user
namespace; nothing else separates keys: two containers without user namespaces that run as root share root's.

Leaves out: types other than ``user``, permissions, request_key(2).
See: keyrings(7), add_key(2), keyctl(2), user-keyring(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
from enum import IntEnum

__all__ = [
    "Keyring",
    "add_key",
    "join_new_session",
    "link_key",
    "read_key",
    "search_key",
    "set_key_timeout",
    "unlink_key",
]


class Keyring(IntEnum):
    """Special numbers of keyrings; linux/keyctl.h."""

    PROCESS = -2
    SESSION = -3
    USER = -4


_JOIN_SESSION_KEYRING, _LINK, _UNLINK, _SEARCH, _READ, _SET_TIMEOUT = 1, 8, 9, 10, 11, 15  # KEYCTL_*, linux/keyctl.h
_NUMBERS = {"x86_64": (248, 250), "aarch64": (217, 219), "riscv64": (217, 219)}  # add_key, keyctl

# ABI: syscall(2) takes and returns longs; the C library has no wrapper for these calls.
_syscall = ctypes.CDLL(None, use_errno=True)["syscall"]
_syscall.restype = ctypes.c_long


def add_key(description: str, payload: bytes, keyring: Keyring) -> int:
    """Make a key of type ``user``, link it to ``keyring`` and return its number. Raises: OSError with EDQUOT, EPERM."""
    words = (b"user", description.encode(), payload)
    return _call(0, *(ctypes.c_char_p(word) for word in words), ctypes.c_size_t(len(payload)), ctypes.c_long(keyring))


def search_key(description: str, keyring: Keyring) -> int:
    """Return the number of a key that can be reached from ``keyring``. Raises: OSError with ENOKEY, EACCES."""
    return _keyctl(_SEARCH, keyring, ctypes.c_char_p(b"user"), ctypes.c_char_p(description.encode()), 0)


def read_key(number: int) -> bytes:
    """Return what the key holds. Raises: OSError with EACCES unless it is in a keyring of the caller's, ENOKEY."""
    buffer = ctypes.create_string_buffer(4096)
    size = _keyctl(_READ, number, ctypes.cast(buffer, ctypes.c_void_p), len(buffer))
    return buffer.raw[:size]


def set_key_timeout(number: int, timeout_s: int) -> None:
    """Let the kernel remove the key after ``timeout_s`` seconds. Raises: OSError."""
    _keyctl(_SET_TIMEOUT, number, timeout_s)


def link_key(number: int, keyring: Keyring) -> None:
    """Put the key (or keyring) into ``keyring`` as well. Raises: OSError with EACCES, EPERM."""
    _keyctl(_LINK, number, keyring)


def unlink_key(number: int, keyring: Keyring) -> None:
    """Take the key out of ``keyring``; a key that is in none is gone. Raises: OSError with ENOENT, ENOKEY."""
    _keyctl(_UNLINK, number, keyring)


def join_new_session() -> None:
    """Give the caller an empty session keyring of its own. Raises: OSError."""
    _keyctl(_JOIN_SESSION_KEYRING, 0)


def _keyctl(operation: int, *arguments: object) -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _call(1, ctypes.c_long(operation), *values)


def _call(which: int, *arguments: object) -> int:
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise OSError(errno.ENOSYS, f"labkit does not know the system call numbers of {machine}")
    result = int(_syscall(ctypes.c_long(_NUMBERS[machine][which]), *arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{('add_key', 'keyctl')[which]}: {os.strerror(number)}")
    return result


def main() -> int:
    """Give a key to a new session keyring, find it by its name, and let it expire; return 0, or 1 where keys are refused."""
    try:
        join_new_session()  # this process's own: nothing is added to the user's
        number = add_key("labkit-example", b"open sesame", Keyring.SESSION)
        set_key_timeout(number, 60)
        print(f"key {number:#x} in the session keyring: {read_key(search_key('labkit-example', Keyring.SESSION))!r}")
        unlink_key(number, Keyring.SESSION)
        search_key("labkit-example", Keyring.SESSION)
    except OSError as error:
        print(
            f"after it was unlinked: {error.strerror}" if error.errno == errno.ENOKEY else f"labkit: refused: {error}"
        )
        return 0 if error.errno == errno.ENOKEY else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
