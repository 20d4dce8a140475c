"""DNA of nuclei by their light: that of a stain that binds to DNA, such as DAPI, adds up.

The unit is the first mode of the scan's single nuclei: 1 is a nucleus before it has doubled its
DNA, 2 one after. Only for such a stain, exposed below saturation, does the number mean DNA.
"""

import numpy as np

from prediction import Array

STEPS = 64  # of an octave, on which the density is computed
WIDTH = 0.15  # octaves, deviation of the kernel: wide against chance, narrow against doubling
OCTAVES = 6  # on both sides of the median; what is farther counts there
PEAK = 0.3  # of the highest one: lower ones before it are chance and dirt
FEW = 5  # nuclei; of fewer the median is used
LARGEST_SCORE = 1 - 5e-7  # the table has six decimals


def dna_content(area: Array, score: Array, whole: Array) -> Array:
    """Return the light of objects above the ground around them, in units of the first mode.

    Parameters
    ----------
    area : (n,) float
        In pixels.
    score : (n,) float
        From the table: s / (1 - s) is the mean light above the rim, in units of the noise, which
        all objects of a scan have in common.
    whole : (n,) bool
        Which objects are single and not cut: the mode is theirs, or that of all if there are none.

    Returns
    -------
    (n,) float
        0 and above; 0 for objects that are no brighter than their rim.
    """
    known = np.clip(score, 0, LARGEST_SCORE)
    light = area * known / (1 - known)
    lit = light > 0
    return np.asarray(light / first_mode(light[lit & whole] if (lit & whole).any() else light[lit]))


def first_mode(light: Array) -> float:
    """Return the least value at which positive values are most frequent; 1 of none.

    It is the first peak of the density of their logarithm, smoothed by a Gaussian, that has at
    least `PEAK` of the height of the highest.
    """
    if len(light) < FEW:
        return float(np.median(light)) if len(light) else 1.0
    middle = float(np.median(light))
    octaves = np.clip(np.log2(light / middle), -OCTAVES, OCTAVES)
    counts = np.bincount(np.rint((octaves + OCTAVES + 1) * STEPS).astype(int))
    reach = round(4 * WIDTH * STEPS)
    kernel = np.exp(-np.square(np.arange(-reach, reach + 1) / (WIDTH * STEPS)) / 2)
    density = np.convolve(counts, kernel)
    inner = density[1:-1]
    peaks = (inner > density[:-2]) & (inner >= density[2:]) & (inner >= PEAK * density.max())
    first = np.flatnonzero(peaks)[0] + 1 - reach
    return middle * float(2.0 ** (first / STEPS - OCTAVES - 1))
