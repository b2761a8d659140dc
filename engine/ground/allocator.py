"""Settings of glibc's allocator for long-lived processes. No effect with another C library.

The activations of a network are large blocks that are freed and allocated again in every batch. By default glibc returns them to the kernel each
time, and every page is faulted in and cleared again: up to 30 % of the time of inference with torch on CPUs and 10 % of that of training, most when
several workers of a node fault at once. Blocks above 64 MB are kept in the main thread only: the heaps of other threads end there.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEEP_BYTES = 2**31 - 1
"""Freed bytes at the top of the heap that a worker keeps: all of them."""
MMAP_BYTES = 2**30
"""Size from which a block of a worker is mapped separately and returned to the kernel when it is freed."""
DEFAULTS = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25}
"""The values that glibc reaches by itself in a process that frees large blocks."""
ARENAS = 2
"""Heaps of a driver. Every pass over a pool starts new threads, and with a heap for each (8 per core by default) the memory that Ray frees is
scattered over them and never returned: 7 kB per shard instead of 1."""

_LIBRARY = ctypes.CDLL(None)


def keep_freed() -> None:
    """Keep memory that is freed from now on for the next batch, and return the memory that is free now. For processes that compute until they end,
    called when everything they compute with is built."""
    _return_free_memory()
    _set_option(M_TRIM_THRESHOLD, KEEP_BYTES)
    _set_option(M_MMAP_THRESHOLD, MMAP_BYTES)


@contextmanager
def keeping_freed() -> Iterator[None]:
    """`keep_freed` within the block; afterwards free memory is returned and the defaults are restored. For tasks in processes that are reused."""
    keep_freed()
    try:
        yield
    finally:
        for option, value in DEFAULTS.items():
            _set_option(option, value)
        _return_free_memory()


def limit_arenas() -> None:
    """Limit the number of heaps, for drivers: they live long and keep starting threads."""
    _set_option(M_ARENA_MAX, ARENAS)


def _return_free_memory() -> None:
    if (trim := getattr(_LIBRARY, "malloc_trim", None)) is not None:
        trim(0)


def _set_option(option: int, value: int) -> None:
    if (mallopt := getattr(_LIBRARY, "mallopt", None)) is not None:
        mallopt(option, value)
