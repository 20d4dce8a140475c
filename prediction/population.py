"""Classes of objects by the population of their scan: single, clump, debris, or cut by its edge.

The model is a softmax of three classes with six parameters. They were fitted by maximum likelihood
to 4,776 objects that the built-in detector found in 120 images of real nuclei; an object is a clump
if it holds most of two nuclei or more, and debris if it holds none. What a table does not hold,
such as nuclei that were not detected, no model of it can know.
"""

import numpy as np

from prediction import Array
from prediction.dna_content import dna_content
from prediction.scan_predictor import ScanPrediction, Table

SINGLE, CLUMP, DEBRIS, CUT = CLASSES = ("single", "clump", "debris", "cut")
CLUMP_WEIGHTS = (-3.92, 2.89, 27.5)  # constant, of log relative area above 0, of missing solidity
DEBRIS_WEIGHTS = (-4.00, 1.81)  # constant, of log relative area below 0
ROUND = 0.95  # solidity of a convex object with rough pixels
COMPACT = 0.9  # solidity of the objects that say how large a single one is
FEW = 5  # fewer compact objects say nothing: all are asked
QUANTILE = 1.645  # of the normal distribution: 90 % lie within this many deviations
# Fraction of the mean doubt by which the doubts of a scan may err together: on the nuclei the
# interval then holds the truth in 85 of 100 images.
COMMON = 1.5


def classify(table: Table) -> ScanPrediction:
    """Add class, its probability, and multiplicity; count with an interval of 90 %.

    Parameters
    ----------
    table : dict of str to ndarray
        Columns of the object table; `area`, `solidity`, `score` and `touches_border` are used.

    Returns
    -------
    ScanPrediction
        Columns ``class``, ``probability`` in [0, 1], ``multiplicity``, the number of objects that
        it counts for, and ``dna_content``, see `prediction.dna_content`; the facts ``count``,
        ``count_low``, ``count_high`` and the number of objects of each class.
    """
    area, solidity = np.asarray(table["area"], float), np.asarray(table["solidity"], float)
    share = class_probabilities(area, solidity)
    cut = np.asarray(table["touches_border"]) > 0
    share[:, cut] = [[1.0], [0.0], [0.0]]  # what lies outside is unknown: counted once
    several = np.maximum(2, np.round(area / single_area(area, solidity)))
    found = share.argmax(axis=0)
    names = np.where(cut, CUT, np.array(CLASSES)[found])
    mean = share[0] + share[1] * several
    variance = (share[0] + share[1] * several**2 - mean**2).sum()
    doubt = COMMON * (1 - share.max(axis=0)).sum()
    half, count = QUANTILE * np.hypot(np.sqrt(variance), doubt), mean.sum()
    facts = {"count": count, "count_low": max(count - half, 0.0), "count_high": count + half}
    return ScanPrediction(
        {
            "class": names,
            "probability": share.max(axis=0).round(6),
            "multiplicity": np.choose(found, [1.0, several, 0.0]).astype(int),
            "dna_content": dna_content(area, np.asarray(table["score"], float), names == SINGLE),
        },
        {name: round(float(value)) for name, value in facts.items()}
        | {name: int((names == name).sum()) for name in CLASSES},
    )


def single_area(area: Array, solidity: Array) -> float:
    """Return the typical area of a single object: the median of compact ones; 1 without objects."""
    compact = area[solidity > COMPACT]
    known = compact if len(compact) >= FEW else area
    return float(np.median(known)) if len(known) else 1.0


def class_probabilities(area: Array, solidity: Array) -> Array:
    """Return the probabilities (3, n) that objects are single, clumps or debris."""
    size = np.log(area / single_area(area, solidity))
    logits = np.zeros((3, len(area)))
    constant, by_size, by_shape = CLUMP_WEIGHTS
    logits[1] = constant + by_size * np.maximum(size, 0)
    logits[1] += by_shape * np.maximum(ROUND - solidity, 0)
    logits[2] = DEBRIS_WEIGHTS[0] + DEBRIS_WEIGHTS[1] * np.maximum(-size, 0)
    weights = np.exp(logits - logits.max(axis=0))
    return np.asarray(weights / weights.sum(axis=0))
