"""What a scan of four channels costs, beside four stackings less three searches of depth.

python benchmarks/channels.py

Four stacks of 15 planes of 1024 x 1024 uint16 of one surface, one thread, all calls in turn within
each round: the four fused by one depth (`stack_channels`), each of them by its own (`focus_stack`),
and the search of depth of each. The limit of a round is the sum of the four less the three searches
that are not needed. "Thin" has five planes of the last three channels. The last column is the
memory of the batch over that of its largest stack.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scenes import Scene, brightfield, fluorescence, steps

from benchmarks.conditions import print_conditions
from imaging.channels import stack_channels
from imaging.stacking import focus_stack, measured_depth, read_only_contiguous

Frames = NDArray[np.generic]
SIZE, PLANES, THIN, DEFOCUS = 1024, 15, 5, 1.2
LIGHT = (1.0, 0.6, 0.3, 0.15)  # of the channels
SCENES: dict[str, tuple[Callable[..., Scene], float]] = {
    "brightfield": (brightfield, 1_000),  # photo-electrons
    "fluorescence": (fluorescence, 800),
    "steps": (steps, 3_000),
}


def channels_of(kind: str, seed: int) -> list[Frames]:
    """Four stacks of one surface: the scene, and dimmer copies of it with noise of their own."""
    scene, electrons = SCENES[kind]
    frames = scene(seed, SIZE, PLANES, DEFOCUS, electrons).frames
    generator = np.random.default_rng(seed)
    stacks = []
    for light in LIGHT:
        noise = generator.normal(0, 3, frames.shape).astype(np.float32)
        stacks.append(read_only_contiguous((frames * light + noise).clip(0).astype(np.uint16)))
    return stacks


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(stacks: Sequence[Frames], rounds: int) -> NDArray[np.float64]:
    """Return for each round the seconds of all channels together, of four stackings, and of three
    searches of depth."""
    shifts = [(len(stack) - PLANES) / 2 for stack in stacks]

    def one_round() -> tuple[float, float, float]:
        together = seconds(lambda: stack_channels(stacks, 0, shifts, align=False))
        alone = sum(seconds(lambda each=stack: focus_stack(each)) for stack in stacks)
        searches = sum(seconds(lambda each=stack: measured_depth(each)) for stack in stacks[1:])
        return together, alone, searches

    one_round()
    return np.array([one_round() for _ in range(rounds)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    print_conditions(rounds=given.rounds, seed=given.seed, size=SIZE, planes=PLANES)
    print("| scene | four channels, ms | four stackings | less three searches | ratio | memory |")
    print("|---|---|---|---|---|---|")
    for kind in SCENES:
        whole = channels_of(kind, given.seed)
        first = (PLANES - THIN) // 2
        thin = [whole[0], *(read_only_contiguous(s[first : first + THIN]) for s in whole[1:])]
        for name, stacks in ((kind, whole), (f"{kind}, thin", thin)):
            together, alone, searches = compare(stacks, given.rounds).T
            limit = alone - searches
            shares = np.percentile(together / limit, (50, 25, 75))
            ratio = "{:.2f} ({:.2f} to {:.2f})".format(*shares)
            memory = sum(stack.nbytes for stack in stacks) / stacks[0].nbytes
            middles = (1e3 * float(np.median(each)) for each in (together, alone, limit))
            print(
                f"| {name} | {' | '.join(f'{ms:.1f}' for ms in middles)} | {ratio} | {memory:.2f} |"
            )


if __name__ == "__main__":
    main()
