"""How large a message between a program and its launcher may be: what both must know, and nothing else.

The program loads no code of the launcher's for it, which would stay in its memory unused.

See: `labkit.container.launcher` for the messages.
"""

from __future__ import annotations

__all__ = ["MESSAGE_BYTES"]

#: The longest message that the program may send: a spec with its environment, its seccomp filter in hexadecimal.
MESSAGE_BYTES = 128 * 1024
