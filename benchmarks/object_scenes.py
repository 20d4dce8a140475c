"""Scenes of objects of one kind with their true labels: clumps, rods, rings, sizes, dark ones.

Three more are z-stacks: dim discs among highlights, with a lamp that flickers, and unevenly lit.

Light is 3000 grey levels above a ground of 150, blurred by a lens, with shot noise. What stands in
a cell of the scene's grid is isolated from all else; within a cell discs may touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Scene = tuple[NDArray[np.uint16], NDArray[np.int32]]  # image, labels
Stack = tuple[NDArray[np.uint16], NDArray[np.int32]]  # (z, y, x), labels
Points = NDArray[np.float64]
LIGHT, GROUND, READ_NOISE = 3000.0, 150.0, 6.0
BRIGHTEST = 20.0  # light of the brightest objects, where lights differ: all that 16 bits hold
TEXTURE, GRAIN_PX = 0.25, 1.2  # deviation and size of the texture of textured objects

HEXAGON = [(np.sin(a), np.cos(a)) for a in np.arange(6) * np.pi / 3]
CLUMPS: dict[str, list[tuple[float, float]]] = {  # centres in diameters
    "pair": [(0, 0), (0, 1)],
    "triangle": [(0, 0), (0, 1), (np.sqrt(3) / 2, 0.5)],
    "chain of 4": [(0, k) for k in range(4)],
    "rhombus of 4": [(0, 0), (0, 1), (np.sqrt(3) / 2, 0.5), (np.sqrt(3) / 2, 1.5)],
    "bent chain of 5": [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)],
    "rosette of 7": [(0, 0), *HEXAGON],
}
PROFILES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {  # over radius
    "flat": np.ones_like,
    "ball": lambda far: np.sqrt(np.clip(1 - far**2, 0, 1) + 0.05),
    "rimmed": lambda far: 0.75 + 0.35 * np.clip(far, 0, 1) ** 4,
}


class Canvas:
    """An image to draw on, with labels."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng, self.light = rng, np.zeros((side, side))
        self.labels = np.zeros((side, side), np.int32)
        self.nearest = np.full((side, side), np.inf)

    def draw(self, centre: tuple[float, float], reach: float, shape: Callable[..., Points]) -> None:
        """Add an object: `shape` maps offsets (y, x) to depth below the rim and brightness."""
        rows, columns = (
            slice(max(0, int(c - reach - 3)), max(0, int(c + reach + 4))) for c in centre
        )
        y = np.arange(self.light.shape[0])[rows, None] - centre[0]
        x = np.arange(self.light.shape[1])[columns] - centre[1]
        depth, light = shape(y, x)
        body = np.clip(depth + 0.5, 0, 1) * light
        self.light[rows, columns] = np.maximum(self.light[rows, columns], body)
        own = (depth > 0) & (-depth < self.nearest[rows, columns])
        self.labels[rows, columns][own] = self.labels.max() + 1
        self.nearest[rows, columns][own] = -depth[own]

    def disc(self, centre: tuple[float, float], diameter: float, profile: str = "flat") -> None:
        def shape(y: Points, x: Points) -> tuple[Points, Points]:
            far = np.hypot(y, x)
            return diameter / 2 - far, PROFILES[profile](2 * far / diameter)

        self.draw(centre, diameter / 2, shape)

    def rod(
        self, centre: tuple[float, float], width: float, length: float, *, bend: float = 0.0
    ) -> None:
        """Draw a rod with round ends whose direction turns by so many radians along it."""
        turn = self.rng.uniform(0, np.pi)

        def shape(y: Points, x: Points) -> tuple[Points, Points]:
            along, across = y * np.sin(turn) + x * np.cos(turn), x * np.sin(turn) - y * np.cos(turn)
            if bend:
                along, across = along_arc(along, across, length - width, bend)
            beyond = np.maximum(np.abs(along) - (length - width) / 2, 0)
            depth = width / 2 - np.hypot(beyond, across)
            return depth, np.ones_like(depth)

        self.draw(centre, length / 2, shape)

    def ring(
        self,
        centre: tuple[float, float],
        diameter: float,
        wall: float,
        *,
        inside: float = 0.0,
        opening: float = 0.0,
    ) -> None:
        """Draw a circle with this light inside of its wall, and an opening of so many radians."""
        turn = self.rng.uniform(0, 2 * np.pi) if opening else 0.0

        def shape(y: Points, x: Points) -> tuple[Points, Points]:
            far = np.hypot(y, x)
            light = np.clip(far - diameter / 2 + wall + 0.5, inside, 1)
            open_here = (np.arctan2(y, x) + turn) % (2 * np.pi) < opening
            return diameter / 2 - far, np.where(open_here, 0.0, light)

        self.draw(centre, diameter / 2, shape)

    def photograph(self, blur_px: float, *, textured: bool = False, dark: bool = False) -> Scene:
        """Return image and labels; dark objects absorb what bright ones would emit."""
        light = self.light
        if textured:
            grain = ndimage.gaussian_filter(self.rng.normal(size=light.shape), GRAIN_PX)
            light = light * (1 + TEXTURE * grain / grain.std())
        light = ndimage.gaussian_filter(light, blur_px)
        grey = GROUND + LIGHT * (1.3 - 0.8 * light if dark else light)
        noisy = self.rng.poisson(grey / 2) * 2.0 + self.rng.normal(0, READ_NOISE, grey.shape)
        return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16), self.labels


def along_arc(along: Points, across: Points, length: float, bend: float) -> tuple[Points, Points]:
    """Return places along and across an arc around the origin, as if it were straight."""
    radius = length / bend
    outwards = across + radius * (1 + np.cos(bend / 2)) / 2
    return np.arctan2(along, outwards) * radius, np.hypot(along, outwards) - radius


def cells(rng: np.random.Generator, side: int, pitch: float) -> Iterator[tuple[float, float]]:
    """Centres of a grid's cells, shaken by a tenth of the pitch."""
    number = int(side / pitch)
    for k in range(number**2):
        place = (np.array(divmod(k, number)) + 0.5) * side / number
        row, column = place + rng.uniform(-0.1, 0.1, 2) * pitch
        yield float(row), float(column)


def clumps(
    seed: int, clump: str, profile: str, diameter: float, side: int = 768, share: float = 0.5
) -> Scene:
    """A share of the cells, evenly, has a clump of touching discs; the others have one disc."""
    rng = np.random.default_rng(seed)
    canvas, offsets = Canvas(rng, side), np.array(CLUMPS[clump])
    offsets = (offsets - offsets.mean(axis=0)) * diameter
    pitch = 1.3 * (2 * np.hypot(*offsets.T).max() + diameter) + 8
    for k, place in enumerate(cells(rng, side, pitch)):
        turn = rng.uniform(0, 2 * np.pi)
        turned = offsets @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        for row, column in turned if int((k + 1) * share) > int(k * share) else ((0, 0),):
            canvas.disc((place[0] + row, place[1] + column), diameter, profile)
    return canvas.photograph(max(1.0, 0.05 * diameter))


def rods(
    seed: int, aspect: float, width: float, side: int = 512, *, textured: bool, bend: float = 0.0
) -> Scene:
    """Isolated rods with round ends, straight or turning by so many radians from end to end."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(rng, side)
    for place in cells(rng, side, 1.25 * aspect * width + 8):
        canvas.rod(place, width, aspect * width, bend=bend)
    return canvas.photograph(0.8, textured=textured)


def rings(
    seed: int, diameter: float, wall: float, side: int = 448, *, inside: float = 0.0
) -> Scene:
    """Isolated circles whose walls shine, and whose middles have this part of their light."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(rng, side)
    for place in cells(rng, side, 1.5 * diameter + 8):
        canvas.ring(place, diameter, wall, inside=inside)
    return canvas.photograph(1.0)


def sizes(seed: int, ratio: float, small: float = 12.0, *, textured: bool) -> Scene:
    """Eight large discs and forty small ones, isolated."""
    rng = np.random.default_rng(seed)
    large, side = ratio * small, round(max(448, 7 * ratio * small))
    canvas = Canvas(rng, side)
    placed: list[tuple[float, float, float]] = []
    for diameter, number in ((large, 8), (small, 40)):
        while number:
            row, column = rng.uniform(0.6 * diameter + 3, side - 0.6 * diameter - 3, 2)
            if all(
                np.hypot(row - y, column - x) > (diameter + other) / 2 + 10
                for y, x, other in placed
            ):
                placed.append((row, column, diameter))
                canvas.disc((row, column), diameter)
                number -= 1
    return canvas.photograph(0.9, textured=textured)


def unequal_lights(seed: int, ratio: float, bright: float, side: int = 400) -> Scene:
    """Isolated discs of 14 to 24 px; a share `bright` of them is `ratio` times as bright."""
    rng = np.random.default_rng(seed)
    canvases = [Canvas(rng, side) for _ in range(2)]
    for k, place in enumerate(cells(rng, side, 40.0)):
        brighter = int((k + 1) * bright) > int(k * bright)
        canvases[brighter].disc(place, rng.uniform(14, 24))
    dim, brighter = canvases
    dim.light = BRIGHTEST * (dim.light / ratio + brighter.light)
    dim.labels += np.where(brighter.labels, brighter.labels + dim.labels.max(), 0).astype(np.int32)
    return dim.photograph(1.0)


def dark_discs(seed: int, diameter: float, side: int = 448) -> Scene:
    """Isolated dark discs on a bright ground, as in transmitted light."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(rng, side)
    for place in cells(rng, side, 2 * diameter + 8):
        canvas.disc(place, diameter)
    return canvas.photograph(1.0, dark=True)


PLANES, FOCUS, BLUR_PX = 9, 3, 1.4  # of z-stacks; blur in each plane out of focus
DARK, DIM, DIMMER = 100.0, 900.0, 0.45  # grey levels; share of the light that corners lack
NUMBER = 60  # of discs


def stack_of_discs(seed: int, brightest: float, side: int = 512) -> Stack:
    """Isolated discs of 14 to 30 px, a tenth of them brighter and four planes higher."""
    rng = np.random.default_rng(seed)
    dim, bright = Canvas(rng, side), Canvas(rng, side)
    placed: list[tuple[float, float, float]] = []
    while len(placed) < NUMBER:
        row, column = rng.uniform(20, side - 20, 2)
        if any(np.hypot(row - y, column - x) < 45 for y, x, _ in placed):
            continue
        placed.append((row, column, rng.uniform(14, 30)))
        on = bright if len(placed) % 10 == 0 and brightest > DIM else dim
        on.disc(*((row, column), placed[-1][2]))
    labels = np.where(bright.labels, bright.labels + dim.labels.max(), dim.labels)
    frames = []
    for plane in range(PLANES):
        low, high = (float(np.hypot(0.8, BLUR_PX * (plane - z))) for z in (FOCUS, FOCUS + 4))
        light = DIM * ndimage.gaussian_filter(dim.light, low)
        light += brightest * ndimage.gaussian_filter(bright.light, high)
        frames.append(rng.poisson(light + GROUND) + rng.normal(0, READ_NOISE / 3, light.shape))
    camera = np.clip(np.rint(np.stack(frames) + DARK), 0, 65535)
    return camera.astype(np.uint16), labels.astype(np.int32)


def flickering(frames: NDArray[np.uint16], seed: int, amount: float) -> NDArray[np.uint16]:
    """The same with planes that have lights of their own, white with this deviation."""
    gains = 1 + amount * np.random.default_rng(seed).normal(size=(len(frames), 1, 1))
    return np.clip(np.rint(DARK + (frames - DARK) * gains), 0, 65535).astype(np.uint16)


def shaded(frames: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """The same with corners that lack light, and the flat of it, of mean 1."""
    y, x = (np.linspace(-1, 1, n) ** 2 for n in frames.shape[1:])
    flat = 1 - DIMMER / 2 * (y[:, None] + x)
    flat = (flat / flat.mean()).astype(np.float32)
    uneven = np.clip(np.rint(DARK + (frames - DARK) * flat), 0, 65535)
    return uneven.astype(np.uint16), flat
