"""How true an estimated flat is, beside other ways to make one from the same frames; see --help.

Light falls by 45 % to the corner farthest from its top, which is 10 % off the centre; frames of 512
x 512 pixels from random places, with shot and read noise above a known dark. Error of the flat
relative to the truth, both of mean 1: root mean square and 99th percentile in percent, median of
the seeds. "refused" is in how many of them no flat is given.

Then z-stacks whose sharp image is known, thinned to such light, focus-stacked as they are and
corrected: PSNR after the best common light.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import scenes
from benchmarks.conditions import print_conditions
from imaging.correction import correct
from imaging.shading import estimate_flat
from imaging.stacking import focus_stack
from scan.correction import Correction
from scan.errors import ShadingError

Image = NDArray[np.floating]
SIZE, DARK, FALL_OFF = 512, 100.0, 0.45
PER_ELECTRON, READ_NOISE = 2.0, 1.6
RIM = 64  # drawn beyond the frame, so that haze is even


def flat() -> Image:
    """The truth, of mean 1."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE * 2 - 1
    away = np.square(y + 0.1) + np.square(x - 0.1)
    light = 1 / (1 + (1 / np.sqrt(1 - FALL_OFF) - 1) * away / away.max()) ** 2
    return np.asarray(light / light.mean())


def nuclei(generator: np.random.Generator, cover: float, haze: float) -> Image:
    """Discs that cover this share of a dark ground, and a share of their light as haze."""
    edge, reach = SIZE + 2 * RIM, 22
    light, near = np.zeros((edge, edge)), np.arange(-reach, reach + 1)
    away = np.hypot(near[:, None], near)
    for y, x in generator.integers(reach, edge - reach, (int(cover * edge**2 / 700), 2)):
        disc = np.clip(generator.uniform(10, 20) - away + 0.5, 0, 1)
        box = slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
        light[box] += generator.lognormal(np.log(800), 0.5) * disc
    wide = 80 + light + haze * cv2.GaussianBlur(light, (0, 0), 25)
    return np.asarray(wide[RIM:-RIM, RIM:-RIM])


def brightfield(generator: np.random.Generator) -> Image:
    """A bright ground, a third of it darker and textured."""
    field, grain = (
        cv2.GaussianBlur(generator.normal(size=(SIZE, SIZE)), (0, 0), sigma) for sigma in (30, 2)
    )
    cover = np.clip(field / field.std() - 0.4, 0, 1)
    return np.asarray(20_000 * (1 - 0.12 * cover) * (1 + 0.04 * cover * grain / grain.std()))


SPECIMENS: dict[str, Callable[[np.random.Generator], Image]] = {
    "sparse nuclei": partial(nuclei, cover=0.06, haze=0.03),
    "dense nuclei": partial(nuclei, cover=0.35, haze=0.03),
    "dense nuclei in strong haze": partial(nuclei, cover=0.35, haze=0.15),
    "brightfield": brightfield,
}


def frames_of(name: str, places: int, seed: int) -> list[NDArray[np.uint16]]:
    """Frames of several places."""
    frames = []
    for generator in np.random.default_rng(seed).spawn(places):
        light = generator.poisson(SPECIMENS[name](generator) * flat() / PER_ELECTRON)
        camera = DARK + PER_ELECTRON * (light + generator.normal(0, READ_NOISE, light.shape))
        frames.append(np.clip(np.rint(camera), 0, 65535).astype(np.uint16))
    return frames


def smooth(image: Image) -> Image:
    """A polynomial of degree 4 through the logarithm of an image, of mean 1."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE * 2 - 1
    terms = np.stack([(y**i * x**j)[::8, ::8].ravel() for i in range(5) for j in range(5 - i)], 1)
    logs = np.log(np.maximum(image, 1e-3 * image.mean()))[::8, ::8].ravel()
    factors = iter(np.linalg.lstsq(terms, logs, rcond=None)[0])
    fitted = np.exp(sum(next(factors) * y**i * x**j for i in range(5) for j in range(5 - i)))
    return np.asarray(fitted / fitted.mean())


def ours(frames: Sequence[Image]) -> Image:
    """The flat of a scan."""
    return np.asarray(estimate_flat(frames, np.full((SIZE, SIZE), DARK, np.float32)).flat)


METHODS: dict[str, Callable[[Sequence[Image]], Image]] = {
    "estimate": ours,
    "estimate, dark not known": lambda frames: np.asarray(estimate_flat(frames).flat),
    "median of a pixel, degree 4": lambda f: smooth(np.median(np.stack(f), axis=0) - DARK),
    "mean of the frames, degree 4": lambda f: smooth(np.mean(np.stack(f), axis=0) - DARK),
    "none": lambda frames: np.ones((SIZE, SIZE)),
}


def compare(places: Sequence[int], seeds: Sequence[int]) -> None:
    """Print the table."""
    print("| specimen | flat | " + " | ".join(f"{n} places" for n in places) + " |")
    print("|" + "---|" * (2 + len(places)))
    for name in SPECIMENS:
        stacks = {n: [frames_of(name, n, seed) for seed in seeds] for n in places}
        for method, make in METHODS.items():
            cells = " | ".join(cell(make, stacks[n]) for n in places)
            print(f"| {name} | {method} | {cells} |", flush=True)


def cell(make: Callable[[Sequence[Image]], Image], stacks: Sequence[Sequence[Image]]) -> str:
    """Return the errors of one method as text."""
    errors, refused = [], 0
    for frames in stacks:
        try:
            error = 100 * (make(frames) / flat() - 1)
        except ShadingError:
            refused += 1
            continue
        errors.append((error.std(), np.quantile(np.abs(error), 0.99)))
    said = "{:.2f} / {:.1f}".format(*np.median(errors, axis=0)) if errors else ""
    return f"{said} ({refused} of {len(stacks)} refused)" if refused else said


STACKS: dict[str, tuple[Callable[..., scenes.Scene], float, str]] = {
    "brightfield": (scenes.brightfield, 10_000, "brightfield"),  # electrons, what the flat is from
    "fluorescence": (scenes.fluorescence, 800, "sparse nuclei"),
    "steps": (scenes.steps, 3_000, "brightfield"),
}


def compare_stacks(places: int, seeds: Sequence[int]) -> None:
    """Print the PSNR of focus-stacked images: even light, uneven, corrected by both flats."""
    print(f"\n| z-stack | even light | uneven | corrected | by a flat from {places} places |")
    print("|---|---|---|---|---|")
    for kind, (make, electrons, specimen) in STACKS.items():
        found = []
        for seed in seeds:
            scene = make(seed, SIZE, 15, 1.2, electrons)
            uneven = thinned(scene.frames, flat(), seed)
            flats = flat(), ours(frames_of(specimen, places, seed))
            raw = [psnr(frames, DARK, scene) for frames in (scene.frames, uneven)]
            corrected = [psnr(correct(uneven, correction(each)), 0.0, scene) for each in flats]
            found.append(raw + corrected)
        print(f"| {kind} | " + " | ".join(f"{value:.2f}" for value in np.mean(found, axis=0)))


def correction(light: Image) -> Correction:
    return Correction(light.astype(np.float32), np.full(light.shape, DARK, np.float32))


def thinned(frames: NDArray[np.uint16], light: Image, seed: int) -> NDArray[np.uint16]:
    """Frames of which each photo-electron is kept with the probability of its place."""
    electrons = np.maximum((frames - scenes.OFFSET) / scenes.GAIN, 0).round().astype(np.int64)
    kept = np.random.default_rng(seed).binomial(electrons, light / light.max())
    return np.asarray(scenes.OFFSET + scenes.GAIN * kept, np.uint16)


def psnr(frames: NDArray[np.uint16], dark: float, scene: scenes.Scene) -> float:
    light, truth = focus_stack(frames).image - dark, scene.sharp - scenes.OFFSET
    fitted = light * ((light * truth).sum() / np.square(light).sum())
    return float(10 * np.log10(np.ptp(truth) ** 2 / np.square(fitted - truth).mean()))


def time_correction(rounds: int) -> None:
    """Print how long dark and flat take, for each megapixel of each plane."""
    frames = np.random.default_rng(0).integers(0, 5000, (15, 1024, 1024)).astype(np.uint16)
    fields = Correction(np.ones((1024, 1024), np.float32), np.full((1024, 1024), 90, np.float32))
    times = []
    for _ in range(rounds + 1):
        began_s = time.perf_counter()
        correct(frames, fields)
        times.append(time.perf_counter() - began_s)
    ms = 1e3 * np.median(times[1:]) / frames.size * 1e6
    print(f"\ncorrection: {ms:.2f} ms a megapixel and plane")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", type=int, nargs="+", default=[6, 18, 48])
    parser.add_argument("--seeds", type=int, nargs="+", default=[501, 502, 503])
    call = parser.parse_args()
    cv2.setNumThreads(1)
    print_conditions(seeds=call.seeds, opencv=cv2.__version__, threads=1)
    compare(call.places, call.seeds)
    compare_stacks(18, call.seeds)
    time_correction(15)


if __name__ == "__main__":
    main()
