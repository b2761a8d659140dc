"""glibc's allocator, told how long our processes live. Where the C library is another, nothing happens.

A network's activations are large blocks that are freed and wanted again batch after batch. By default glibc hands them back to the kernel each time,
and every page is faulted in and cleared again: up to three tenths of the time of inference with torch on CPUs, and a tenth of that of training; most
where several workers of a machine fault at once. Blocks above 64 MB are kept in the main thread alone: other threads' heaps end there.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT = 2**31 - 1
"""Freed bytes at the top of the heap that a worker keeps: all."""
MAPPED = 2**30
"""Bytes from which a worker's block is mapped by itself and handed back when it is freed."""
USUAL = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25}
"""What glibc comes to by itself in a process that frees large blocks."""
ARENAS = 2
"""Heaps of a driver. Every pass over a pool brings new threads, and with a heap for each (8 a core by default) what Ray frees lies scattered over
them and is never given back: 7 kB a shard instead of 1."""

_LIBRARY = ctypes.CDLL(None)


def keep_freed() -> None:
    """For processes that compute until they end, once all is built that they compute with: what is freed from now on stays, to be used by the next
    batch; what building freed is given back."""
    _give_back()
    _tell(M_TRIM_THRESHOLD, KEPT)
    _tell(M_MMAP_THRESHOLD, MAPPED)


@contextmanager
def freed_kept() -> Iterator[None]:
    """For tasks in processes that others use after them: `keep_freed`, and at the end everything is given back, then as usual."""
    keep_freed()
    try:
        yield
    finally:
        for option, value in USUAL.items():
            _tell(option, value)
        _give_back()


def few_arenas() -> None:
    """For drivers, which live long and start threads without end."""
    _tell(M_ARENA_MAX, ARENAS)


def _give_back() -> None:
    if (trim := getattr(_LIBRARY, "malloc_trim", None)) is not None:
        trim(0)


def _tell(option: int, value: int) -> None:
    if (mallopt := getattr(_LIBRARY, "mallopt", None)) is not None:
        mallopt(option, value)
