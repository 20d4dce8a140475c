"""Several stains of one simulated specimen: what other channels of the microscope show.

The first stain is that of the nuclei, which the reference shows. Stains in between mark the
cytoplasm around the nuclei; others mark the nuclei again, each with its own brightness and grain.
"""

from dataclasses import replace

import numpy as np

from microscope.specimen import Specimen

CYTOPLASM = 1.6  # width over that of the nucleus
CYTOPLASM_LIGHT, OTHER_LIGHT = 0.4, 0.7  # brightness over that of the first stain


def stained(specimen: Specimen, stain: int, z_offset_um: float) -> Specimen:
    """Return what a stain shows of a specimen.

    Parameters
    ----------
    specimen : Specimen
    stain : int
        0 shows the specimen as it is; odd numbers the cytoplasm, even ones the nuclei.
    z_offset_um : float
        How much higher the stain is in focus, because of its colour.
    """
    raised = replace(specimen, height_um=specimen.height_um + z_offset_um)
    if not stain:
        return raised
    light = OTHER_LIGHT if stain % 2 == 0 else CYTOPLASM_LIGHT
    shuffled = np.random.default_rng([stain, len(specimen)]).permutation(specimen.brightness)
    return replace(
        raised,
        diameter_um=specimen.diameter_um * (1.0 if stain % 2 == 0 else CYTOPLASM),
        brightness=light * shuffled,
        texture_seed=specimen.texture_seed + stain,
    )
