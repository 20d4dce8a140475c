"""Does placing a field cost more where there are more? The driver's rule, with matches made up.

    python benchmarks/registration_sizes.py

Fields come in the order of a scan, stripe after stripe or several side by side; a fifth of the
pairs has no match. Milliseconds of CPU a field, of the driver, without the tasks that match and
write.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conditions import print_conditions
from imaging.registration import Registration
from scan.layout import make_plan
from scan.matches import Match, pair_of
from scan.plan import Place

STAGE_PX, MATCH_PX, MATCHED = 3.0, 0.05, 0.8


def order(side: int, cameras: int) -> Iterator[Place]:
    """The fields of a square, so many stripes at a time."""
    for first in range(0, side, cameras):
        stripes = range(first, min(first + cameras, side))
        yield from ((stripe, field) for field in range(side) for stripe in stripes)


def costs(side: int, cameras: int) -> np.ndarray:
    """CPU seconds for each field as it comes."""
    generator = np.random.default_rng(1)
    plan = make_plan((side,) * side, (256, 256), 26, 1.0, steered=False)
    true = generator.normal(0, STAGE_PX, (side, side, 2))
    state = Registration(plan, {}, {})

    def found(place: Place, other: Place) -> Match | None:
        one, two = pair_of(place, other)
        down, across = (true[two] - true[one] + generator.normal(0, MATCH_PX, 2)).tolist()
        shown = generator.random() < MATCHED
        return Match((down, across), (1e-3, 1e-3, 0.0), 0.9) if shown else None

    def write() -> None:
        for decided, _ in state.decide():
            state.release(decided)

    spent_s = []
    for place in order(side, cameras):
        began_s = time.process_time()
        others = state.add(place)
        write()
        state.add_matches(place, others, [found(place, other) for other in others])
        write()
        spent_s.append(time.process_time() - began_s)
    assert len(state.placed) == side**2
    return np.array(spent_s)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", type=int, nargs="+", default=[10, 32, 100], help="in fields")
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    print_conditions()
    heads = ("fields", "side by side", "ms a field", "first tenth", "last tenth", "longest")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for side in options.sides:
        for cameras in options.cameras:
            spent_ms = 1e3 * costs(side, cameras)
            tenths = [part.mean() for part in np.array_split(spent_ms, 10)]
            numbers = (spent_ms.mean(), tenths[0], tenths[-1], spent_ms.max())
            shown = " | ".join(f"{each:.1f}" for each in numbers)
            print(f"| {side**2:,} | {cameras} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
