"""The effect of the settings of the allocator: page faults and resident memory of a separate process."""

import subprocess
import sys

import pytest

from engine.ground import allocator

SHARED = """
import resource
import numpy as np
import psutil
from engine.ground import allocator

def work() -> None:
    for _ in range(10):
        np.ones(8 * 2**20)  # 64 MiB, freed at once

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident() -> float:
    return psutil.Process().memory_info().rss / 2**20

work()
"""

pytestmark = pytest.mark.skipif(not hasattr(allocator._LIBRARY, "mallopt"), reason="another C library than glibc")


def measure(script: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", SHARED + script], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def test_freed_memory_is_used_again_without_page_faults() -> None:
    before, after = measure("print(faults()); allocator.keep_freed(); work(); print(faults())")
    assert before >= 10 * 32, "64 MiB are at least 32 pages, be they as large as they may"
    assert after < 32


def test_a_task_returns_kept_memory_and_the_next_one_keeps_nothing() -> None:
    start, inside, end, later = measure(
        "print(resident())\nwith allocator.keeping_freed():\n    work(); print(resident())\nprint(resident()); work(); print(resident())"
    )
    assert inside - start > 50
    assert end - start < 10
    assert later - start < 10


ARENAS = """
import ctypes, os, re, tempfile, threading
from engine.ground import allocator

allocator.limit_arenas()
all_here = threading.Barrier(17)

def allocate() -> None:
    libc.malloc(100_000)
    all_here.wait()
    all_here.wait()

libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
threads = [threading.Thread(target=allocate) for _ in range(16)]
for thread in threads:
    thread.start()
all_here.wait()
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(len(re.findall(b"<heap nr", file.read())))
all_here.wait()
"""


def test_threads_of_a_driver_share_few_heaps() -> None:
    (heaps,) = measure(ARENAS)
    assert heaps <= allocator.ARENAS
