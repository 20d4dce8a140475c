"""How fast and how true focus stacking is, compared with others; see --help.

Speed: 15 planes of 1024 x 1024 uint16, one thread, all in turn within each round, every call on
another stack than the last; next to the time that reading every plane takes. Quality: scenes with
known truth, brightfield at low and high light, fluorescent nuclei and opaque steps, each with
three rates of defocus and two numbers of planes. PSNR over the truth's range, SSIM, depth as root
mean square in planes where there is something to see.

With `--pictures FOLDER` and `--data FOLDER` of z-stacks: best plane, fused image and depth of each.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers import peers
from scenes import OFFSET, Scene, bright_discs, brightfield, fluorescence, steps

from benchmarks.conditions import print_conditions
from imaging import kernels
from imaging.depth import block_depth
from imaging.focus import sharpness
from imaging.stacking import block_energy, focus_stack, rounding

Frames = NDArray[np.generic]
KINDS: dict[str, tuple[Callable[..., Scene], float]] = {
    "brightfield, low light": (brightfield, 1_000),  # photo-electrons
    "brightfield, high light": (brightfield, 10_000),
    "fluorescence": (fluorescence, 800),
    "steps": (steps, 3_000),
}
DEFOCUS = (0.7, 1.2, 2.0)  # px per plane
PLANES = (15, 25)
OURS = "focus_stack"
PICTURE_PX = 1800  # of three views side by side


def read(frames: Frames) -> None:
    """Read every plane once, as fast as numpy can."""
    for plane in frames:
        plane.max()


def add_up(frames: Frames) -> None:
    """Add up every plane, the least that a program would do with it."""
    for plane in frames:
        plane.sum()


def best_plane(frames: Frames) -> Frames:
    return frames[int(np.argmax(sharpness(frames)[0]))]


def plain_blend(frames: Frames) -> Frames:
    """Ours without sharpening and steps."""
    blocks = block_depth(block_energy(frames))
    image = np.empty(frames.shape[1:], frames.dtype)
    depth = np.empty(frames.shape[1:], np.float32)
    kernels.blend(frames, blocks.depth, rounding(frames), image, depth)
    return image


METHODS: dict[str, Callable[[Frames], Frames]] = {
    OURS: lambda frames: focus_stack(frames).image,
    "blend alone, not sharpened": plain_blend,
    **peers(),
    "maximum projection": lambda frames: frames.max(axis=0),
    "best plane": best_plane,
}


# ------------------------------------------------------------------------------------- speed


def compare_speed(rounds: int, seed: int) -> None:
    """Milliseconds of CPU of each method, in turn, and their ratio to reading."""
    for kind in ("brightfield, low light", "fluorescence", "steps"):
        scene, electrons = KINDS[kind]
        first = scene(seed, 1024, 15, 1.2, electrons).frames
        stacks = [first, first + np.uint16(1), first + np.uint16(2)]
        calls = {"read (maximum)": read, "read (sum)": add_up} | METHODS
        for method in calls.values():
            method(first)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds):
            for number, (name, method) in enumerate(calls.items()):
                began = cpu_s()
                method(stacks[(turn + number) % len(stacks)])
                times[name].append(1e3 * (cpu_s() - began))
        print_speed(kind, times)


def cpu_s() -> float:
    """CPU seconds of this process, and of programs that it started and that ended."""
    programs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + programs.ru_utime + programs.ru_stime


def print_speed(kind: str, times: dict[str, list[float]]) -> None:
    base = np.median(times["read (maximum)"])
    ours = np.median(times[OURS])
    print(f"| {kind}: 15 x 1024 x 1024 | CPU ms, median | quartiles | x read | x ours |")
    print("|---|---|---|---|---|")
    for name, values in times.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        print(
            f"| {name} | {middle:.1f} | {low:.1f} to {high:.1f} | {middle / base:.1f} "
            f"| {middle / ours:.1f} |"
        )
    print(flush=True)


# ----------------------------------------------------------------------------------- quality


@dataclass(frozen=True)
class Score:
    """How one method did on one scene; depth is nan where it gives none."""

    psnr: float
    ssim: float
    depth: float = float("nan")


def score(image: Frames, scene: Scene, depth: float = float("nan")) -> Score:
    truth, found = scene.sharp.astype(np.float64), image.astype(np.float64)
    span = float(np.ptp(truth))
    psnr = 10 * np.log10(span**2 / np.square(found - truth).mean())
    return Score(float(psnr), float(structural_similarity(truth, found, data_range=span)), depth)


def oracle(scene: Scene) -> Frames:
    """Each pixel from the plane nearest to its true height."""
    nearest = np.rint(scene.height).astype(int)[None]
    return np.take_along_axis(scene.frames, nearest, 0)[0]


def scores_of(scene: Scene) -> dict[str, Score]:
    stack = focus_stack(scene.frames)
    error = float(np.sqrt(np.square((stack.depth - scene.height)[scene.known]).mean()))
    scores = {
        "true height, nearest plane": score(oracle(scene), scene),
        OURS: score(stack.image, scene, error),
    }
    others = {name: method for name, method in METHODS.items() if name != OURS}
    return scores | {name: score(way(scene.frames), scene) for name, way in others.items()}


def compare_quality(seeds: list[int], size: int) -> None:
    """Means over seeds, defocus and planes, and how many scenes meet each goal."""
    for kind, (make, electrons) in KINDS.items():
        found = [
            scores_of(make(seed, size, planes, blur, electrons))
            for seed in seeds
            for blur in DEFOCUS
            for planes in PLANES
        ]
        print(f"| {kind}, {len(found)} scenes | PSNR dB | SSIM |\n|---|---|---|")
        for name in found[0]:
            psnr, ssim = (
                np.mean([getattr(s[name], key) for s in found]) for key in ("psnr", "ssim")
            )
            print(f"| {name} | {psnr:.2f} | {ssim:.4f} |")
        print()
        for line in goals(kind, found):
            print(line)
        print(flush=True)


def goals(kind: str, found: list[dict[str, Score]]) -> Iterator[str]:
    """What was asked for, in how many scenes it holds, and the worst of them."""

    def verdict(name: str, margins: list[float], unit: str) -> str:
        met = sum(margin >= 0 for margin in margins)
        return f"{name}: {met} of {len(margins)}, least margin {min(margins):+.3f} {unit}"

    ours = [scores[OURS] for scores in found]

    def beyond(name: str, least: float) -> list[float]:
        return [a.psnr - scores[name].psnr - least for a, scores in zip(ours, found, strict=True)]

    if kind == "steps":
        best = [max(scores[peer].ssim for peer in peers()) for scores in found]
        margins = [a.ssim - b + 0.005 for a, b in zip(ours, best, strict=True)]
        yield verdict("SSIM no more than 0.005 below the best peer", margins, "")
        return
    yield verdict(
        "PSNR at least that of true height", beyond("true height, nearest plane", 0), "dB"
    )
    pyramid = beyond("Laplacian pyramid, 5x5 energy", 0.5)
    yield verdict("PSNR 0.5 dB above the Laplacian pyramid", pyramid, "dB")
    yield verdict(
        "at most 0.1 dB below the plain blend", beyond("blend alone, not sharpened", -0.1), "dB"
    )
    limit = 0.25 if kind == "fluorescence" else 0.10
    yield verdict(f"depth within {limit} planes", [limit - a.depth for a in ours], "planes")
    yield f"depth error, root mean square: median {np.median([a.depth for a in ours]):.3f} planes"


RINGS = ((5, 10), (10, 20), (20, 40), (40, 60))  # px outside discs
BRIGHT = (OURS, "Laplacian pyramid, 5x5 energy", "maximum projection")


def compare_highlights(seeds: list[int], size: int) -> None:
    """Correlation of the ground's detail around spots that are 20 to 60 times as bright."""

    def alike(image: Frames, ground: Frames, ring: NDArray[np.bool_]) -> float:
        fine = [i - cv2.GaussianBlur(i, (0, 0), 3) for i in (np.float32(image), ground)]
        return float(np.corrcoef(fine[0][ring], fine[1][ring])[0, 1])

    print(
        "| highlights: correlation of detail at | " + " | ".join(f"{a} to {b} px" for a, b in RINGS)
    )
    for name in (*BRIGHT, "ground's own plane"):
        found = []
        for seed in seeds:
            for light in (20_000, 60_000):
                scene = bright_discs(seed, size, 4, light, 5)
                image = METHODS[name](scene.frames) if name in METHODS else scene.frames[3]
                found.append([alike(image, scene.ground, ring) for ring in rings(scene.away)])
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in np.mean(found, axis=0)))
    print(flush=True)


def compare_halos(seeds: list[int], size: int) -> None:
    """Mean error of the ground 5 to 10 px outside saturated discs at several distances."""
    apart = (0, 4, 8)
    print("| halos: grey levels 5 to 10 px outside | " + " | ".join(f"{a} planes" for a in apart))
    for name in BRIGHT:
        errors = []
        for planes in apart:
            scenes = [bright_discs(seed, size, 12, 80_000, planes) for seed in seeds]
            ring = [next(rings(scene.away)) for scene in scenes]
            errors.append(
                np.mean([
                    (METHODS[name](s.frames).astype(float) - s.ground)[r].mean()
                    for s, r in zip(scenes, ring, strict=True)
                ])
            )  # fmt: skip
        print(f"| {name} | " + " | ".join(f"{error:+.0f}" for error in errors))
    print(flush=True)


def rings(away: Frames) -> Iterator[NDArray[np.bool_]]:
    for near, far in RINGS:
        yield (away > near) & (away < far)


def compare_flicker(seeds: list[int], size: int) -> None:
    """PSNR with a lamp of which every plane has its own light."""
    amounts = (0.0, 0.05, 0.1)
    print("| flicker: PSNR dB | " + " | ".join(f"{amount:.0%}" for amount in amounts))
    for kind, (make, electrons) in KINDS.items():
        scenes = [make(seed, size, n, 1.2, electrons) for seed in seeds for n in PLANES]
        found = [
            np.mean([flickering(scene, amount, k) for k, scene in enumerate(scenes)])
            for amount in amounts
        ]
        print(f"| {kind} | " + " | ".join(f"{value:.2f}" for value in found))
    print(flush=True)


def flickering(scene: Scene, amount: float, seed: int) -> float:
    """PSNR of ours after the best common light, with each plane's light multiplied."""
    gains = 1 + amount * np.random.default_rng(seed).normal(size=(len(scene.frames), 1, 1))
    frames = np.clip(np.rint(OFFSET + (scene.frames - OFFSET) * gains), 0, 65535).astype(np.uint16)
    light, truth = focus_stack(frames).image - OFFSET, scene.sharp - OFFSET
    fitted = OFFSET + light * ((light * truth).sum() / np.square(light).sum())
    return score(fitted, scene).psnr


# ---------------------------------------------------------------------------------- pictures


def draw(folder: Path, paths: list[Path]) -> None:
    """Best plane, fused image and depth of each z-stack, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        frames = read_stack(path)
        stack = focus_stack(frames)
        grey = frames if frames.ndim == 3 else frames[..., 1]
        depth = np.uint8(255 * stack.depth / max(1, len(frames) - 1))
        views = [
            shown(frames[int(np.argmax(sharpness(grey)[0]))], stack.image),
            shown(stack.image, stack.image),
            cv2.applyColorMap(depth, cv2.COLORMAP_VIRIDIS),
        ]
        scale = PICTURE_PX / sum(view.shape[1] for view in views)
        wide = cv2.resize(np.hstack(views), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{path.name}.jpg"), wide, [cv2.IMWRITE_JPEG_QUALITY, 85])


def read_stack(path: Path) -> Frames:
    """The images of a folder in order of name, grey or colour."""
    images = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in sorted(path.iterdir())]
    return np.stack(images)


def shown(image: Frames, like: Frames) -> Frames:
    """An 8 bit colour picture; grey ones are stretched alike."""
    if image.ndim == 3:
        return image
    low, high = np.percentile(like, (0.5, 99.8))
    stretched = np.clip((image - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
    return cv2.cvtColor(stretched, cv2.COLOR_GRAY2BGR)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="of timing (default: 15)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102], help="of the scenes")
    parser.add_argument("--size", type=int, default=1024, help="edge of the scenes in pixels")
    parser.add_argument("--pictures", type=Path, help="folder for pictures, instead of figures")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders of planes")
    parser.add_argument("--only-light", action="store_true", help="highlights, halos, flicker")
    call = parser.parse_args()
    cv2.setNumThreads(1)
    if call.pictures:
        draw(call.pictures, call.data)
        return
    print_conditions(seeds=call.seeds, opencv=cv2.__version__, threads=1)
    if not call.only_light:
        compare_speed(call.rounds, call.seeds[0])
    compare_highlights(call.seeds, call.size)
    compare_halos(call.seeds, call.size)
    compare_flicker(call.seeds, call.size)
    if not call.only_light:
        compare_quality(call.seeds, call.size)


if __name__ == "__main__":
    main()
