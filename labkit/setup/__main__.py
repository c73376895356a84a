"""``python3 -m labkit.setup``: see `labkit.setup.command`."""

from __future__ import annotations

import sys

from labkit.setup.command import main

if __name__ == "__main__":
    sys.exit(main())
