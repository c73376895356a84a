"""Several transfers at once; the first that fails ends the others.

See: Python's concurrent.futures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from labkit.image.descriptor import Descriptor
from labkit.image.registry.fetch import Stopped
from labkit.image.registry.progress import Moved

__all__ = ["PARALLEL", "for_each"]

#: As many as Docker's default for pulls.
PARALLEL = 3


def for_each(
    blobs: Iterable[Descriptor],
    work: Callable[[Descriptor], Moved],
    *,
    parallel: int,
    stop: threading.Event,
    cut: Callable[[], object],
) -> tuple[Moved, ...]:
    """Do ``work`` for each of ``blobs``, once a digest; the first error is raised when all have ended.

    It sets ``stop``, which the others look at, and calls ``cut``, which ends their waiting.
    """
    once = {blob.digest: blob for blob in blobs}
    with ThreadPoolExecutor(max(1, parallel), thread_name_prefix="labkit-transfer") as pool:
        futures = [pool.submit(work, blob) for blob in once.values()]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            errors = [error for future in done if (error := future.exception()) is not None]
            if errors:
                raise next((error for error in errors if not isinstance(error, Stopped)), errors[0])
        except BaseException:  # Ctrl-C, too: the threads must hear of it, or leaving this block would wait for them
            stop.set()
            cut()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return tuple(future.result() for future in futures)
