"""Counter-based random numbers: the random numbers of an image are a pure function of its seed.

They do not depend on the batch, the number of workers or any global generator, so a resumed or resharded run draws the
same numbers as an uninterrupted one.
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

    Column k does not depend on `n`. Seeds may be consecutive: they are mixed before they are used as counters.
    """
    counters = np.arange(1, n + 1, dtype=np.uint64) * _GAMMA
    bits = _mix(_mix(seeds.astype(np.uint64, copy=False))[:, None] + counters)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def view_seeds(seeds: npt.NDArray[np.uint64], number: int) -> npt.NDArray[np.uint64]:
    """Seeds of the additional view `number` (1, 2, …) of each image, independent of those of the other views."""
    return _mix(seeds.astype(np.uint64, copy=False) ^ _mix(np.array([number], np.uint64) * _GAMMA))
