"""What the allocator was told, seen from outside: page faults and resident memory of a process of its own."""

import subprocess
import sys

import pytest

from engine import heap

SHARED = """
import resource
import numpy as np
import psutil
from engine import heap

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

pytestmark = pytest.mark.skipif(not hasattr(heap._LIBRARY, "mallopt"), reason="another C library than glibc")


def told(script: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", SHARED + script], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def test_what_is_freed_is_used_again_without_a_fault() -> None:
    before, after = told("print(faults()); heap.keep_freed(); work(); print(faults())")
    assert before >= 10 * 32, "64 MiB are at least 32 pages, be they as large as they may"
    assert after < 32


def test_a_task_gives_back_what_it_kept() -> None:
    start, inside, end = told(
        "print(resident())\nwith heap.freed_kept():\n    work()\n    print(resident())\nprint(resident())"
    )
    assert inside - start > 50
    assert end - start < 10
