"""Random numbers without state: what an image goes through is a pure function of its own seed.

Neither the batch it stands in, nor the number of workers, nor any global generator has a say, so a resumed or resharded
run draws what an undisturbed one would have drawn.
"""

import numpy as np
import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection; every input bit moves every output bit."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(seeds: npt.NDArray[np.uint64], n: int) -> npt.NDArray[np.float64]:
    """`n` uniform numbers in [0, 1) for each seed, float64 (B, n): number k is splitmix64 of (seed, k).

    Column k does not depend on `n`. Seeds may be consecutive: they are mixed before they are counted from.
    """
    counters = np.arange(1, n + 1, dtype=np.uint64) * _GAMMA
    bits = _mix(_mix(seeds.astype(np.uint64, copy=False))[:, None] + counters)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def view_seeds(seeds: npt.NDArray[np.uint64], number: int) -> npt.NDArray[np.uint64]:
    """The seeds of each image's further view `number` (1, 2, …), which draws nothing that another view draws."""
    return _mix(seeds.astype(np.uint64, copy=False) ^ _mix(np.array([number], np.uint64) * _GAMMA))
