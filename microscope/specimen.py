"""The ground truth: a specimen generated from a seed, with known objects and focus heights.

The same seed, extent and density give the same specimen in any process. No images are made here.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

DIAMETER_UM = (8.0, 14.0)  # nuclei of cultured mammalian cells
ELONGATION = (1.0, 1.5)  # long axis over short axis
BRIGHTNESS = (20.0, 80.0)  # photo-electrons per ms and pixel, in the body of the object
HEIGHT_SD_UM = 1.2  # of an object about the focus surface
HEIGHT_LIMIT_UM = 3.0
FOCUS_OFFSET_UM = 3.0  # at most, up or down
TILT_UM = (8.0, 4.0)  # across the width, across the height
BOW_UM = 3.0  # from the centre to the corners
CLOSEST = 0.9  # centre distance over sum of radii: a few percent touch, none overlap much
PLACING_ROUNDS = 50


@dataclass(frozen=True)
class FocusSurface:
    """Height of a tilted and bowed slide over (u, v), each from -1/2 to 1/2.

    Attributes
    ----------
    offset_um, tilt_x_um, tilt_y_um, bow_um : float
        Height of the centre, rise across the width and the height, rise from centre to corners.
    """

    offset_um: float
    tilt_x_um: float
    tilt_y_um: float
    bow_um: float

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Self:
        """Draw an offset, and tilt and bow with random sign and 10 % variation of size."""
        sign = generator.choice([-1.0, 1.0], 3)
        tilt_x, tilt_y, bow = sign * (*TILT_UM, BOW_UM) * generator.uniform(0.9, 1.1, 3)
        offset = generator.uniform(-FOCUS_OFFSET_UM, FOCUS_OFFSET_UM)
        return cls(float(offset), float(tilt_x), float(tilt_y), float(bow))

    def __call__(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the height in µm, float64, at (u, v)."""
        bow_um = 2 * self.bow_um * (u**2 + v**2)  # u² + v² is 1/2 at the corners
        return np.asarray(self.offset_um + self.tilt_x_um * u + self.tilt_y_um * v + bow_um)


@dataclass(frozen=True, eq=False)
class Specimen:
    """Nuclei-like ellipses on a slide whose height varies by more than the depth of focus.

    Attributes
    ----------
    extent_um : tuple of float
        (height, width); centres lie in 0 … height and 0 … width, rims may exceed it.
    surface : FocusSurface
        Mean height of best focus.
    x_um, y_um, height_um : numpy.ndarray
        (n,) float64, the centre of each object; height_um is the z at which it is sharpest.
    diameter_um : numpy.ndarray
        (n,) float64, of the circle of equal area.
    elongation : numpy.ndarray
        (n,) float64, long axis over short axis, 1 or more.
    orientation : numpy.ndarray
        (n,) float64, radians from the x axis towards the y axis to the long axis, 0 … π.
    brightness : numpy.ndarray
        (n,) float64, photo-electrons per ms and pixel.
    texture_seed : numpy.ndarray
        (n,) int64, seed of each object's texture.
    """

    extent_um: tuple[float, float]
    surface: FocusSurface
    x_um: np.ndarray
    y_um: np.ndarray
    height_um: np.ndarray
    diameter_um: np.ndarray
    elongation: np.ndarray
    orientation: np.ndarray
    brightness: np.ndarray
    texture_seed: np.ndarray

    def __len__(self) -> int:
        return len(self.x_um)

    @classmethod
    def grow(
        cls, seed: int, extent_um: tuple[float, float], *, density_per_mm2: float = 680.0
    ) -> Self:
        """Generate a specimen; with fewer objects than requested where the density leaves no room.

        Parameters
        ----------
        seed : int
            0 or more.
        extent_um : tuple of float
            (height, width).
        density_per_mm2 : float
            Objects per mm²; the default puts about 15 into a field of 148 µm.
        """
        generator = np.random.default_rng(seed)
        surface = FocusSurface.draw(generator)
        count = round(density_per_mm2 * extent_um[0] * extent_um[1] * 1e-6)
        diameter_um = generator.uniform(*DIAMETER_UM, count)
        y_um, x_um = _place(diameter_um, extent_um, generator)
        placed = np.isfinite(x_um)
        offset_um = generator.normal(0, HEIGHT_SD_UM, count)
        offset_um = offset_um.clip(-HEIGHT_LIMIT_UM, HEIGHT_LIMIT_UM)
        dimmest, brightest = BRIGHTNESS
        traits = {
            "x_um": x_um,
            "y_um": y_um,
            "height_um": surface(*_relative(x_um, y_um, extent_um)) + offset_um,
            "diameter_um": diameter_um,
            "elongation": generator.uniform(*ELONGATION, count),
            "orientation": generator.uniform(0, np.pi, count),
            "brightness": dimmest * (brightest / dimmest) ** generator.random(count),
            "texture_seed": generator.integers(2**31, size=count),
        }
        return cls(extent_um, surface, **{name: trait[placed] for name, trait in traits.items()})

    def focus_surface_um(self, x_um: np.ndarray | float, y_um: np.ndarray | float) -> np.ndarray:
        """Return the height of best focus in µm, float64, at positions in µm; arrays broadcast."""
        return self.surface(*_relative(np.asarray(x_um), np.asarray(y_um), self.extent_um))


def _relative(
    x_um: np.ndarray, y_um: np.ndarray, extent_um: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    return x_um / extent_um[1] - 0.5, y_um / extent_um[0] - 0.5


def _place(
    diameter_um: np.ndarray, extent_um: tuple[float, float], generator: np.random.Generator
) -> np.ndarray:
    """Return positions (y, x) of the objects, shape (2, n); NaN for those without room."""
    size = np.array([[extent_um[0]], [extent_um[1]]])
    positions = size * generator.random((2, len(diameter_um)))
    for _ in range(PLACING_ROUNDS):
        clashing = _clashing(positions, diameter_um)
        if not len(clashing):
            return positions
        positions[:, clashing] = size * generator.random((2, len(clashing)))
    positions[:, _clashing(positions, diameter_um)] = np.nan
    return positions


def _clashing(positions: np.ndarray, diameter_um: np.ndarray) -> np.ndarray:
    """Return the indices of objects that lie too close to one of lower index."""
    order = np.argsort(positions[1])  # neighbours in space are then few steps apart along x
    clashing = np.zeros(len(order), bool)
    for step in range(1, len(order)):
        left, right = order[:-step], order[step:]
        y_um, x_um = positions[:, right] - positions[:, left]
        if x_um.min() > CLOSEST * DIAMETER_UM[1]:
            break
        closest_um = CLOSEST * (diameter_um[left] + diameter_um[right]) / 2
        clash = np.hypot(y_um, x_um) < closest_um
        clashing[np.maximum(left, right)[clash]] = True
    return np.flatnonzero(clashing)
