"""How fast the processor's time stamp counter counts: the frequency that a guest under emulation cannot find out.

An x86 processor counts ticks from its start, and one instruction (rdtsc) reads them. An operating system compares the counter at its start with a
clock of known speed. In an emulated guest that comparison fails whenever the host is busy, and a kernel without another clock then
waits for ticks that never come. The host knows the answer: it has had years to measure. As Linux does not tell it to programs, it is
measured here, over a few milliseconds.

Leaves out: other machines, whose counters have a frequency register; processors whose counter changes its speed.
See: Intel SDM volume 3, "Time-stamp counter"; Documentation/admin-guide/kernel-parameters.txt (tsc_early_khz).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import time
from collections.abc import Callable

__all__ = ["tsc_khz"]

_READ = bytes.fromhex(
    "0f31"  #      rdtsc             the counter in two halves
    "48c1e220"  #  shl  rdx, 32
    "4809d0"  #    or   rax, rdx
    "c3"  #        ret
)
_MEASURED_S = 0.01
_ROUNDS = 3


def tsc_khz() -> int | None:
    """Return the counter's frequency in kHz, measured for a few hundredths of a second; None on other machines.

    Raises: OSError where memory may not be both writable and executable (a hardened kernel).
    """
    if platform.machine() != "x86_64":
        return None
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_READ)
        view = ctypes.c_char.from_buffer(page)
        # ABI: no argument, the answer in rax.
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(view))
        rates = [_rate(read) for _ in range(_ROUNDS)]
        del view, read  # they keep the page from being unmapped
    return round(
        sorted(rates)[_ROUNDS // 2]
    )  # a round that was interrupted between its two clocks is not the middle one


def _rate(read: Callable[[], int]) -> float:
    began_ns, began = time.monotonic_ns(), read()
    time.sleep(_MEASURED_S)
    ended_ns, ended = time.monotonic_ns(), read()
    return float(ended - began) * 1e6 / (ended_ns - began_ns)


def main() -> int:
    """Measure the counter and print its frequency."""
    khz = tsc_khz()
    print(
        "this machine has no time stamp counter"
        if khz is None
        else f"the counter makes {khz / 1e6:.3f} ticks a nanosecond"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
